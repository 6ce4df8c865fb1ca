-- Stores events in the lists of their channels, and sends them to the workers that subscribed to the channels.
-- Stores and sends all events or none.
--
-- KEYS  1 state    hash   as in state.lua
--       2 heads    zset   as in state.lua
--       3 once     hash   the reply to an earlier call with the same idempotency id: `epoch`; `first`, the id of
--                         the first event; and `count`, how many events the call stored
--       4.. lists  list   one for each channel in ARGV, oldest entry first
-- ARGV  1 "<epoch> <secret>" for a new epoch, which begins if the state is missing or damaged
--       2 prefix of the pub/sub names of live events; the channel's name follows the prefix
--       3 how many entries are kept in a list
--       4 how long a list is kept after its newest entry, in milliseconds
--       5 how long the reply is kept under `once`, in milliseconds
--       6 name of the command that sends: PUBLISH, or SPUBLISH on a cluster
--       7 number n of channels; then n channel names in the order of their lists
--       then for each event: meta, body, number m of its channels, m indexes into the names
-- Returns {epoch, id of the first event, number of events, list `foreign` as in state.lua}. Each further event has
-- an id that is one higher. If an earlier call had the same idempotency id, returns the reply of the earlier call.
-- The number is "" if an older version of this script stored the earlier reply.

local earlier = typed('HMGET', KEYS[3], 'epoch', 'first', 'count')
if not earlier then
  redis.call('DEL', KEYS[3])
elseif is_epoch(earlier[1]) and position(earlier[2]) then
  redis.call('PEXPIRE', KEYS[3], ARGV[5]) -- a write: WAIT then waits for this write and all earlier writes
  return {earlier[1], earlier[2], position(earlier[3]) and earlier[3] or '', foreign}
end

local epoch, last, horizon, lineage, secret = open_state(KEYS[1], KEYS[2], ARGV[1])
if refused then return refused end
local first = next_position(last)
local id = first - 1

local function push(list, entry)
  if not typed('RPUSH', list, entry) then
    redis.call('DEL', list)
    redis.call('RPUSH', list, entry)
  end
end

-- Adds to the meta of an event with a time to live when the event expires.
local function with_expiry(meta)
  local ttl = string.match(meta, '^t=(%d+)$') or string.match(meta, '&t=(%d+)$')
  if not ttl then return meta end
  local clock, behind = expiry_clock(KEYS[1])
  redis.call('HSET', KEYS[1], 'time', whole_text(now), 'behind', whole_text(behind))
  return meta .. '&e=' .. whole_text(clock + ttl)
end

local heads = {} -- by index into the names: id of the channel's newest event, once this call has stored one
local names = tonumber(ARGV[7])
local at = 8 + names
while ARGV[at] do
  id = id + 1
  local id_text = whole_text(id)
  local meta, body, count = with_expiry(ARGV[at]), ARGV[at + 1], tonumber(ARGV[at + 2])
  for k = at + 3, at + 2 + count do
    local index = tonumber(ARGV[k])
    local channel, list = ARGV[7 + index], KEYS[3 + index]
    local prev = heads[index] or head_of(KEYS[2], channel, list, epoch, horizon, id - 1)
    if prev == 0 then
      prev = -horizon
      redis.call('DEL', list) -- the channel has no head, so its list is from an earlier epoch
    end
    local head = epoch .. ' ' .. id_text .. ' ' .. whole_text(prev) .. ' ' .. meta
    local entry = head .. '\n' .. body
    push(list, entry)
    -- proof.py computes the same proof. Without it, another program could publish an event with an id of the future.
    redis.call(ARGV[6], ARGV[2] .. channel, redis.sha1hex(secret .. channel .. ' ' .. head .. secret) .. ' ' .. entry)
    heads[index] = id
  end
  at = at + 3 + count
end
for index, head in pairs(heads) do
  redis.call('LTRIM', KEYS[3 + index], -tonumber(ARGV[3]), -1)
  redis.call('PEXPIRE', KEYS[3 + index], ARGV[4])
  redis.call('ZADD', KEYS[2], whole_text(head), ARGV[7 + index])
end

-- Removes the heads of channels whose lists have expired. If there are any, the horizon moves to the position up to
-- which heads are removed.
local quiet = math.floor(id - ARGV[4] * 1000)
if quiet > horizon and redis.call('ZREMRANGEBYSCORE', KEYS[2], '(0', whole_text(quiet)) > 0 then
  horizon = quiet
end
redis.call('HSET', KEYS[1], 'last', whole_text(id), 'horizon', whole_text(horizon))
local first_text, number = whole_text(first), whole_text(id - first + 1)
redis.call('HSET', KEYS[3], 'epoch', epoch, 'first', first_text, 'count', number)
redis.call('PEXPIRE', KEYS[3], ARGV[5])
return {epoch, first_text, number, foreign}
