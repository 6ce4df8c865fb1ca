-- The beginning of both other scripts: what they keep beside the lists, read and checked.
--
-- state  hash  epoch, last (highest position taken), horizon (a channel without a head had no event after it),
--              server (replication id of the server that wrote it),
--              lineage (epochs it goes on from, newest first: "<epoch>:<last position of it> ...")
-- heads  zset  channel -> id of its newest event; "" is always there, with score +inf

-- Positions above are refused: below 2^53 a double counts exactly. As a clock they mean the year 2255.
local LATEST = 9e15

local function position(text)
  local number = text and string.match(text, '^%d+$') and tonumber(text)
  return number and number <= LATEST and number
end

-- The length of an epoch on one of several shards. It begins with the shard's number and with how many there are.
local SHARD_EPOCH = 6

-- Epochs remembered: a client that was away for more failovers than these is told that it may miss something.
local MOST_EPOCHS = 8
-- Bytes that so many take at most. What is longer is not ours, and patterns would take long to find that out.
local LONGEST_LINEAGE = 300

-- Another one when a replica is promoted and when a server starts. "unknown" where INFO is forbidden.
local function replication_id()
  local info = redis.pcall('INFO', 'replication')
  return type(info) == 'string' and string.match(info, 'master_replid:(%w+)') or 'unknown'
end

local function joined(epoch, last, lineage)
  local words = {epoch .. ':' .. string.format('%.0f', last)}
  for word in string.gmatch(lineage, '[a-z0-9]+:%d+') do
    if #words < MOST_EPOCHS then words[#words + 1] = word end
  end
  return table.concat(words, ' ')
end

-- Returns epoch, last, horizon, lineage. A state that is missing or damaged, even by a foreign hand, ends its
-- epoch: its positions can not be trusted, and every client that held one is told.
--
-- A state that another server wrote, or this one before it was started, may lack the newest writes: a replica
-- lags, a snapshot is old. But it lacks nothing up to `last`, for both take over writes in their order. So the
-- epoch ends here and another goes on from it: positions up to `last` stay good, those above were lost.
local function open_state(state_key, heads_key, fresh_epoch)
  local state = redis.call('HMGET', state_key, 'epoch', 'last', 'horizon', 'server', 'lineage')
  local server, lineage = replication_id(), state[5] or ''
  if #lineage > LONGEST_LINEAGE then lineage = '' end
  local epoch, last, horizon = state[1], position(state[2]), position(state[3])
  local whole = epoch and #epoch <= 16 and string.match(epoch, '^[a-z0-9]+$') and last and horizon
  if #fresh_epoch == SHARD_EPOCH then -- another number of shards: the channels lay elsewhere
    whole = whole and #epoch == SHARD_EPOCH and string.sub(epoch, 1, 2) == string.sub(fresh_epoch, 1, 2)
  else
    whole = whole and #epoch ~= SHARD_EPOCH
  end
  -- The two highest scores: that of "" and the newest event's, which cannot be ahead of `last`.
  local top = whole and redis.call('ZREVRANGE', heads_key, 0, 1, 'WITHSCORES')
  if top and top[1] == '' and top[2] == 'inf' and tonumber(top[4] or 0) <= last then
    if state[4] == server then return epoch, last, horizon, lineage end
    lineage = joined(epoch, last, lineage)
    redis.call('HSET', state_key, 'epoch', fresh_epoch, 'server', server, 'lineage', lineage)
    return fresh_epoch, last, horizon, lineage
  end
  redis.call('DEL', state_key, heads_key)
  redis.call('HSET', state_key, 'epoch', fresh_epoch, 'last', 0, 'horizon', 0, 'server', server)
  redis.call('ZADD', heads_key, '+inf', '')
  return fresh_epoch, 0, 0, ''
end

local function next_position(last)
  local time = redis.call('TIME')
  return math.max(last + 1, time[1] * 1000000 + time[2])
end

