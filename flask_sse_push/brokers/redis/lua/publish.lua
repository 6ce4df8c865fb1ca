-- Stores events in the lists of their channels, and sends them to the workers that subscribed to the channels.
-- Stores and sends all events or none. Before it stores any, it asks the server whether this Redis user may send to all
-- channels of the call; if not, the reply is the error NOPERM, which names the channel. A server without the function
-- `acl_check_cmd` (older than Redis 7) cannot be asked. There the script stores and sends the events before the first
-- event that it may not send. Of this event, it may have sent live messages to some of the event's channels.
--
-- KEYS  1 state    hash    as in state.lua
--       2 heads    zset    as in state.lua
--       3 once     hash    the reply to an earlier call with the same idempotency id: `epoch`; `first`, the id of
--                          the first event; and `count`, how many events the call stored. A string with these
--                          three words if the publisher gave no id: then only the call itself may be repeated
--       4.. lists  list    one for each channel in ARGV, oldest entry first
-- ARGV  1 prefix of the pub/sub names of live events; the channel's name follows the prefix
--       2 the longest time that this publisher keeps any list after its newest entry, in milliseconds
--       3 digest of this publisher's channel policies
--       4 name of the command that sends: PUBLISH, or SPUBLISH on a cluster
--       5 "<epoch> <secret>" for a new epoch, which begins if the state is missing or damaged
--       6 how long the reply is kept under `once`, in milliseconds
--       7 "named" if the publisher gave an idempotency id; else "new" for the first try of a call, "again" for others
--       8 number n of channels; then for each channel, in the order of their lists, its name and "<how many entries
--         its list keeps> <how long after the newest entry, in milliseconds> <how many bytes the bodies of its
--         entries may have together; 0 means no limit>"
--       then for each event: "<meta> <index> ..." with the indexes of its channels, or only "<index>" if its meta
--       is "-" and it has one channel; and the body
-- Returns "<epoch> <id of the first event> <number of events>". Each further event has an id that is one higher. If an
-- earlier call had the same idempotency id, returns the reply of the earlier call; the number is 0 if an older version
-- of this script stored that reply.
--
-- If there is more to say, returns a list: this text; the list `foreign` as in state.lua; the digest in the state if it
-- is not that of this publisher, else ""; and an error. The digest is "-" if the state had none, so that this call
-- stored the publisher's. The digest is false if an earlier call is repeated. The error is "" unless a server without
-- `acl_check_cmd` has refused a live message: then the call stores the events before the first such event, and no later
-- event.
--
-- publish_one.lua has a shorter way for the usual call, with the same results. A change here may need one there.

local function reply_of(epoch, first, count)
  return epoch .. ' ' .. first .. ' ' .. count
end

-- Returns an id as text. Most calls store one event, and need its id several times.
local text_id, id_text
local function text_of(id)
  if id ~= text_id then text_id, id_text = id, whole_text(id) end
  return id_text
end

if ARGV[7] == 'named' then
  local earlier = typed('HMGET', KEYS[3], 'epoch', 'first', 'count')
  if not earlier then
    redis.call('DEL', KEYS[3])
  elseif is_epoch(earlier[1]) and position(earlier[2]) then
    redis.call('PEXPIRE', KEYS[3], ARGV[6]) -- a write: WAIT then waits for this write and all earlier writes
    return {reply_of(earlier[1], earlier[2], position(earlier[3]) and earlier[3] or '0'), foreign, false, ''}
  end
elseif ARGV[7] == 'again' then
  local earlier = typed('GET', KEYS[3])
  if earlier and #earlier <= 60 and string.match(earlier, '^[a-z0-9]+ %d+ %d+$') then
    redis.call('PEXPIRE', KEYS[3], ARGV[6])
    return {earlier, foreign, false, ''}
  end
end

local may_run = redis.acl_check_cmd
for index = 1, may_run and tonumber(ARGV[8]) or 0 do
  local channel = ARGV[7 + 2 * index]
  local name = ARGV[1] .. channel
  if not may_run(ARGV[4], name) then
    return redis.error_reply(
      "NOPERM this user may not send to the channel '" .. channel .. "' (" .. ARGV[4] .. " to '" .. name .. "')"
    )
  end
end

local epoch, last, horizon, lineage, secret = open_state(KEYS[1], KEYS[2], ARGV[5])
if refused then return refused end
local first = next_position(last)
local id = first - 1

-- Appends entries to a list. Returns how many entries the list then has.
local function push(list, ...)
  local length = typed('RPUSH', list, ...)
  if length then return length end
  redis.call('DEL', list)
  return redis.call('RPUSH', list, ...)
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

-- By index into the channels: id of the channel's newest event, once this call has stored one; its entries that are not
-- yet in the list; how many entries the list has.
local heads, waiting, lengths = {}, {}, {}

-- Appends the waiting entries of a channel to its list.
local function flush(index)
  local entries = waiting[index]
  for from = 1, #entries, 1000 do
    lengths[index] = push(KEYS[3 + index], unpack(entries, from, math.min(from + 999, #entries)))
  end
  waiting[index] = nil
end

-- By number of the live message: its pub/sub name, its text, the index of its channel, and how many events of this call
-- come before its event.
local names, messages, indexes, earlier_events = {}, {}, {}, {}

-- Adds an event to the list of a channel, and to the messages.
local function store(index, meta, body)
  local channel, list, keep = ARGV[7 + 2 * index], KEYS[3 + index], ARGV[8 + 2 * index]
  local prev = heads[index] or head_of(KEYS[2], channel, list, epoch, horizon, id - 1)
  if prev == 0 then
    prev = -horizon
    redis.call('DEL', list) -- the channel has no head, so its list is from an earlier epoch
  end
  local is_limited = string.sub(keep, -2) ~= ' 0'
  if is_limited then
    local size, most = string.match(keep, '^(%d+) %d+ (%d+)$')
    local total, bytes = make_room(list, tonumber(size), tonumber(most), #body)
    meta = (meta == '-' and '' or meta .. '&') .. 'b=' .. total .. '.' .. whole_text(bytes)
  end
  local head = epoch .. ' ' .. text_of(id) .. ' ' .. whole_text(prev) .. ' ' .. meta
  local entry = head .. '\n' .. body
  local entries = waiting[index]
  if entries then entries[#entries + 1] = entry else waiting[index] = {entry} end
  if is_limited then flush(index) end -- the next event of the channel must find this one
  local n = #names + 1
  names[n], indexes[n], earlier_events[n] = ARGV[1] .. channel, index, id - first
  -- proof.py computes the same proof. Without it, another program could publish an event with an id of the future.
  messages[n] = redis.sha1hex(secret .. channel .. ' ' .. head .. secret) .. ' ' .. entry
  heads[index] = id
end

local at = 9 + 2 * tonumber(ARGV[8])
while ARGV[at] do
  id = id + 1
  local index = tonumber(ARGV[at])
  if index then
    store(index, '-', ARGV[at + 1])
  else
    local meta, rest = string.match(ARGV[at], '^(%S+)(.*)$')
    meta = with_expiry(meta)
    for each in string.gmatch(rest, '%d+') do store(tonumber(each), meta, ARGV[at + 1]) end
  end
  at = at + 2
end
for index in pairs(waiting) do flush(index) end

-- How many events this call stores, and why it stores no more.
local count, problem = id - first + 1, ''
for n, name in ipairs(names) do
  local sent = redis.pcall(ARGV[4], name, messages[n])
  if type(sent) == 'table' then
    count, problem = earlier_events[n], sent.err
    break
  end
end

-- Takes the events from number `count` on out of their lists.
local function take_back()
  local surplus = {}
  heads, id = {}, first + count - 1
  for n, index in ipairs(indexes) do
    if earlier_events[n] < count then
      heads[index] = first + earlier_events[n]
    else
      surplus[index] = (surplus[index] or 0) + 1
    end
  end
  for index, n in pairs(surplus) do redis.call('LTRIM', KEYS[3 + index], 0, -n - 1) end
end

if problem ~= '' then
  take_back()
  if count == 0 then return {reply_of(epoch, text_of(first), 0), foreign, false, problem} end
end
for index, head in pairs(heads) do
  local size, ttl = string.match(ARGV[8 + 2 * index], '^(%d+) (%d+)')
  if lengths[index] > tonumber(size) then redis.call('LTRIM', KEYS[3 + index], '-' .. size, -1) end
  redis.call('PEXPIRE', KEYS[3 + index], ttl)
  redis.call('ZADD', KEYS[2], text_of(head), ARGV[7 + 2 * index])
end

-- Removes the heads of channels whose lists have expired. If there are any, the horizon moves to the position up to
-- which heads are removed. Another publisher may keep lists longer; `longest` in the state says for how long, in
-- milliseconds, and up to which position that holds. A head that outlives its list does no harm.
local longest = tonumber(ARGV[2])
local theirs, valid = string.match(noted_longest, '^(%d+) (%d+)$')
theirs, valid = tonumber(theirs or 0), tonumber(valid or 0)
if valid > id + 2000 * theirs then valid = 0 end -- another program has written it
if theirs > longest and valid > id then
  longest = theirs
elseif theirs ~= longest or valid < id + longest * 1000 then
  redis.call('HSET', KEYS[1], 'longest', ARGV[2] .. ' ' .. whole_text(id + 2000 * longest))
end
local quiet = math.floor(id - longest * 1000)
local is_due = math.floor(id / 100000) ~= math.floor(last / 100000) -- at most ten times a second
if is_due and quiet > horizon and redis.call('ZREMRANGEBYSCORE', KEYS[2], '(0', whole_text(quiet)) > 0 then
  redis.call('HSET', KEYS[1], 'horizon', whole_text(quiet))
end
redis.call('HSET', KEYS[1], 'last', text_of(id))

local differs = '' -- the digest in the state, if it is not that of this publisher
if noted_policies ~= ARGV[3] then
  differs = noted_policies
  if #differs > 40 or not string.match(differs, '^%x+$') then
    differs = '-'
    redis.call('HSET', KEYS[1], 'policies', ARGV[3])
  end
end
local first_text = text_of(first)
local reply = reply_of(epoch, first_text, count)
if ARGV[7] == 'named' then
  redis.call('HSET', KEYS[3], 'epoch', epoch, 'first', first_text, 'count', count)
  redis.call('PEXPIRE', KEYS[3], ARGV[6])
else
  redis.call('SET', KEYS[3], reply, 'PX', ARGV[6])
end
return (foreign[1] or differs ~= '' or problem ~= '') and {reply, foreign, differs, problem} or reply
