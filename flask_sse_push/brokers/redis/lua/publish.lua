-- Stores events in the lists of their channels, and sends them to the workers that subscribed to the channels.
-- Stores and sends all events or none.
--
-- KEYS  1 state    hash   as in state.lua
--       2 heads    zset   as in state.lua
--       3 once     hash   the reply to an earlier call with the same idempotency id: `epoch`, and `first`, the
--                         id of the first event
--       4.. lists  list   one for each channel in ARGV, oldest entry first
-- ARGV  1 fresh epoch, used when the state is missing or damaged
--       2 prefix of the pub/sub names of live events; the channel's name follows the prefix
--       3 how many entries are kept in a list
--       4 how long a list is kept after its newest entry, in milliseconds
--       5 how long the reply is kept under `once`, in milliseconds
--       6 name of the command that sends: PUBLISH, or SPUBLISH on a cluster
--       7 number n of channels; then n channel names in the order of their lists
--       then for each event: meta, body, number m of its channels, m indexes into the names
-- Returns {epoch, id of the first event}. Each further event has an id that is one higher.

local earlier = redis.call('HMGET', KEYS[3], 'epoch', 'first')
if earlier[1] then
  redis.call('PEXPIRE', KEYS[3], ARGV[5]) -- a write: WAIT then waits for this write and all earlier writes
  return earlier
end

local epoch, last, horizon = open_state(KEYS[1], KEYS[2], ARGV[1])
local first = next_position(last)
local id = first - 1

local names = tonumber(ARGV[7])
local at = 8 + names
while ARGV[at] do
  id = id + 1
  local id_text = string.format('%.0f', id)
  local meta, body, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  for k = at + 3, at + 2 + count do
    local index = tonumber(ARGV[k])
    local channel, list = ARGV[7 + index], KEYS[3 + index]
    local prev = tonumber(redis.call('ZSCORE', KEYS[2], channel) or -horizon)
    if prev <= 0 then
      redis.call('DEL', list) -- the channel has no head, so its list is from an earlier epoch
    end
    local entry = epoch .. ' ' .. id_text .. ' ' .. string.format('%.0f', prev) .. ' ' .. meta .. '\n' .. body
    redis.call('RPUSH', list, entry)
    redis.call('LTRIM', list, -tonumber(ARGV[3]), -1)
    redis.call('PEXPIRE', list, ARGV[4])
    redis.call('ZADD', KEYS[2], id_text, channel)
    redis.call(ARGV[6], ARGV[2] .. channel, entry)
  end
  at = at + 3 + count
end

-- Removes the heads of channels whose lists have expired. If there are any, the horizon moves to the position up to
-- which heads are removed.
local quiet = math.floor(id - ARGV[4] * 1000)
if quiet > horizon and redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', quiet)) > 0 then
  horizon = quiet
end
redis.call('HSET', KEYS[1], 'last', string.format('%.0f', id), 'horizon', string.format('%.0f', horizon))
local first_text = string.format('%.0f', first)
redis.call('HSET', KEYS[3], 'epoch', epoch, 'first', first_text)
redis.call('PEXPIRE', KEYS[3], ARGV[5])
return {epoch, first_text}
