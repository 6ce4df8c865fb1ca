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
--       3 the longest time that this publisher keeps any list after its newest entry, in milliseconds
--       4 digest of this publisher's channel policies
--       5 how long the reply is kept under `once`, in milliseconds
--       6 name of the command that sends: PUBLISH, or SPUBLISH on a cluster
--       7 number n of channels; then for each channel, in the order of their lists, its name and "<how many entries
--         its list keeps> <how long after the newest entry, in milliseconds> <how many bytes the bodies of its
--         entries may have together; 0 means no limit>"
--       then for each event: meta, body, number m of its channels, m indexes into the channels
-- Returns {epoch, id of the first event, number of events, list `foreign` as in state.lua, the digest in the state if
-- it is not that of this publisher, else ""}. Each further event has an id that is one higher. If an earlier call had
-- the same idempotency id, returns the reply of the earlier call. The number is "" if an older version of this script
-- stored the earlier reply, and the digest is not compared (false). The digest is "-" if the state had none, so that
-- this call stored the publisher's.

local earlier = typed('HMGET', KEYS[3], 'epoch', 'first', 'count')
if not earlier then
  redis.call('DEL', KEYS[3])
elseif is_epoch(earlier[1]) and position(earlier[2]) then
  redis.call('PEXPIRE', KEYS[3], ARGV[5]) -- a write: WAIT then waits for this write and all earlier writes
  return {earlier[1], earlier[2], position(earlier[3]) and earlier[3] or '', foreign, false}
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

-- Returns how many bytes the body of an entry has.
local function body_size(entry)
  return #entry - (string.find(entry, '\n', 1, true) or #entry)
end

-- Returns how many bytes the bodies of a list's entries have together.
local function bytes_of(list)
  local total = 0
  for start = 0, (typed('LLEN', list) or 0) - 1, 512 do
    for _, entry in ipairs(typed('LRANGE', list, start, start + 511)) do total = total + body_size(entry) end
  end
  return total
end

-- Adds to the meta of an event with a time to live when the event expires.
local function with_expiry(meta)
  local ttl = string.match(meta, '^t=(%d+)$') or string.match(meta, '&t=(%d+)$')
  if not ttl then return meta end
  local clock, behind = expiry_clock(KEYS[1])
  redis.call('HSET', KEYS[1], 'time', whole_text(now), 'behind', whole_text(behind))
  return meta .. '&e=' .. whole_text(clock + ttl)
end

-- Removes the oldest entries of a list, so that one more body of `added` bytes fits. Returns how many entries the
-- list then has, with the new one, and how many bytes their bodies have. Another publisher may have another policy,
-- so `b` in the newest entry counts only if the list has as many entries as it says.
local function make_room(list, size, bytes, added)
  local count = typed('LLEN', list) or 0
  local newest = count > 0 and typed('LINDEX', list, -1) or ''
  local noted, total = string.match(newest, '^[^\n]*[ &]b=(%d+)%.(%d+)\n')
  if tonumber(noted) ~= count then total = bytes_of(list) end
  total, count = total + added, count + 1
  local dropped, step = 0, 1
  while count > 1 and (count > size or total > bytes) do
    for _, entry in ipairs(typed('LRANGE', list, dropped, dropped + step - 1)) do
      if count == 1 or count <= size and total <= bytes then break end
      total, count, dropped = total - body_size(entry), count - 1, dropped + 1
    end
    step = math.min(step * 2, 512)
  end
  if dropped > 0 then redis.call('LTRIM', list, dropped, -1) end
  return count, total
end

-- By index into the channels: id of the channel's newest event, once this call has stored one; and the same as text.
local heads, head_texts = {}, {}
local first_text, id_text
local at = 8 + 2 * tonumber(ARGV[7])
while ARGV[at] do
  id = id + 1
  id_text = whole_text(id)
  first_text = first_text or id_text
  local meta, body, count = with_expiry(ARGV[at]), ARGV[at + 1], tonumber(ARGV[at + 2])
  for k = at + 3, at + 2 + count do
    local index = tonumber(ARGV[k])
    local channel, list = ARGV[6 + 2 * index], KEYS[3 + index]
    local prev = heads[index] or head_of(KEYS[2], channel, list, epoch, horizon, id - 1)
    if prev == 0 then
      prev = -horizon
      redis.call('DEL', list) -- the channel has no head, so its list is from an earlier epoch
    end
    local own_meta, keep = meta, ARGV[7 + 2 * index]
    if string.sub(keep, -2) ~= ' 0' then
      local size, most = string.match(keep, '^(%d+) %d+ (%d+)$')
      local total, bytes = make_room(list, tonumber(size), tonumber(most), #body)
      own_meta = (meta == '-' and '' or meta .. '&') .. 'b=' .. total .. '.' .. whole_text(bytes)
    end
    local head = epoch .. ' ' .. id_text .. ' ' .. whole_text(prev) .. ' ' .. own_meta
    local entry = head .. '\n' .. body
    push(list, entry)
    -- proof.py computes the same proof. Without it, another program could publish an event with an id of the future.
    redis.call(ARGV[6], ARGV[2] .. channel, redis.sha1hex(secret .. channel .. ' ' .. head .. secret) .. ' ' .. entry)
    heads[index], head_texts[index] = id, id_text
  end
  at = at + 3 + count
end
for index, head_text in pairs(head_texts) do
  local size, ttl = string.match(ARGV[7 + 2 * index], '^(%d+) (%d+)')
  redis.call('LTRIM', KEYS[3 + index], '-' .. size, -1)
  redis.call('PEXPIRE', KEYS[3 + index], ttl)
  redis.call('ZADD', KEYS[2], head_text, ARGV[6 + 2 * index])
end

-- Removes the heads of channels whose lists have expired. If there are any, the horizon moves to the position up to
-- which heads are removed. Another publisher may keep lists longer; `longest` in the state says for how long, in
-- milliseconds, and up to which position that holds. A head that outlives its list does no harm.
local longest = tonumber(ARGV[3])
local theirs, valid = string.match(noted_longest, '^(%d+) (%d+)$')
theirs, valid = tonumber(theirs or 0), tonumber(valid or 0)
if valid > id + 2000 * theirs then valid = 0 end -- another program has written it
if theirs > longest and valid > id then
  longest = theirs
elseif theirs ~= longest or valid < id + longest * 1000 then
  redis.call('HSET', KEYS[1], 'longest', ARGV[3] .. ' ' .. whole_text(id + 2000 * longest))
end
local quiet = math.floor(id - longest * 1000)
if quiet > horizon and redis.call('ZREMRANGEBYSCORE', KEYS[2], '(0', whole_text(quiet)) > 0 then
  redis.call('HSET', KEYS[1], 'horizon', whole_text(quiet))
end
redis.call('HSET', KEYS[1], 'last', id_text)

local differs = '' -- the digest in the state, if it is not that of this publisher
if noted_policies ~= ARGV[4] then
  differs = noted_policies
  if #differs > 40 or not string.match(differs, '^%x+$') then
    differs = '-'
    redis.call('HSET', KEYS[1], 'policies', ARGV[4])
  end
end
local number = whole_text(id - first + 1)
redis.call('HSET', KEYS[3], 'epoch', epoch, 'first', first_text, 'count', number)
redis.call('PEXPIRE', KEYS[3], ARGV[5])
return {epoch, first_text, number, foreign, differs}
