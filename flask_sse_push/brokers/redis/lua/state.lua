-- Begins publish.lua and history.lua: reads and checks the shard's state.
--
-- state  hash  epoch
--              last     the highest position taken
--              horizon  a channel without a head had no event after this position
--              server   replication id of the server that wrote the state
--              lineage  the earlier epochs that the epoch continues, newest first:
--                       "<epoch>:<last position in both epochs> ..."
-- heads  zset  channel -> id of its newest event; and "" with score +inf, always

-- Higher positions are refused: a double is exact below 2^53. As a clock, this is the year 2255.
local LATEST = 9e15

local function position(text)
  local number = text and string.match(text, '^%d+$') and tonumber(text)
  return number and number <= LATEST and number
end

-- Length of an epoch on one of several shards: it begins with the shard's number and the number of shards.
local SHARD_EPOCH = 6

-- Earlier epochs remembered: a client that was away for more failovers gets a reset.
local MOST_EPOCHS = 8
-- Bytes that these epochs take at most. Another program wrote a longer lineage; matching it would take long.
local LONGEST_LINEAGE = 300

-- Changes when a replica is promoted and when a server starts. "unknown" where INFO is forbidden.
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

-- Returns epoch, last, horizon, lineage.
--
-- A state that is missing or damaged begins a fresh epoch, because the positions of the old one cannot be
-- trusted. Every client with a cursor of the old epoch gets a reset.
--
-- A state that another server wrote, or this server before a restart, may lack the newest writes: a replica lags,
-- and a snapshot is old. But it lacks nothing up to `last`, because both keep the order of writes. So a fresh
-- epoch continues the old one: cursors up to `last` stay valid, and cursors above it get a reset.
local function open_state(state_key, heads_key, fresh_epoch)
  local state = redis.call('HMGET', state_key, 'epoch', 'last', 'horizon', 'server', 'lineage')
  local server, lineage = replication_id(), state[5] or ''
  if #lineage > LONGEST_LINEAGE then lineage = '' end
  local epoch, last, horizon = state[1], position(state[2]), position(state[3])
  local whole = epoch and #epoch <= 16 and string.match(epoch, '^[a-z0-9]+$') and last and horizon
  if #fresh_epoch == SHARD_EPOCH then -- with another number of shards, the channels lay on other shards
    whole = whole and #epoch == SHARD_EPOCH and string.sub(epoch, 1, 2) == string.sub(fresh_epoch, 1, 2)
  else
    whole = whole and #epoch ~= SHARD_EPOCH
  end
  -- The two highest scores: that of "", and that of the newest event, which cannot be above `last`.
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

