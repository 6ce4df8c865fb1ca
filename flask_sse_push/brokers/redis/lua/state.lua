-- Reads and checks the state of a shard. This text is put in front of publish.lua and of history.lua.
--
-- state  hash  epoch
--              last     the highest position so far
--              horizon  a channel that is not in heads had no event after this position
--              server   replication id of the server that wrote the state
--              lineage  the earlier epochs whose older events are kept (see open_state), newest first:
--                       "<epoch>:<last position that is still valid> ..."
-- heads  zset  channel -> id of its newest event; also "" with score +inf, which shows that the zset is complete

-- The highest valid position. It is a date in the year 2255, and below 2^53, up to which doubles are exact.
local LATEST = 9e15

local function position(text)
  local number = text and string.match(text, '^%d+$') and tonumber(text)
  return number and number <= LATEST and number
end

-- How many characters an epoch has if there are several shards. Such an epoch begins with the shard's number and
-- the number of shards.
local SHARD_EPOCH = 6

-- At most this many earlier epochs are remembered. Each failover begins an epoch; a client that missed more
-- failovers gets a reset.
local MOST_EPOCHS = 8
-- At most this many bytes in a lineage. A longer lineage was written by another program and is ignored, because
-- reading it would take long.
local LONGEST_LINEAGE = 300

-- Returns the server's replication id. The id changes when a replica becomes the primary and when a server
-- starts. Returns "unknown" if INFO is forbidden.
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
-- If the state is missing or damaged, a fresh epoch begins, because the positions of the old epoch cannot be
-- trusted. Every client with a cursor of the old epoch gets a reset.
--
-- If the state was written by another server, or by this server before a restart, the newest writes may be lost:
-- a replica can lag behind, and a snapshot can be old. But every write up to `last` is there, because replicas and
-- snapshots keep the order of writes. So a fresh epoch continues the old epoch: cursors of the old epoch up to
-- `last` stay valid, and clients with higher cursors get a reset.
local function open_state(state_key, heads_key, fresh_epoch)
  local state = redis.call('HMGET', state_key, 'epoch', 'last', 'horizon', 'server', 'lineage')
  local server, lineage = replication_id(), state[5] or ''
  if #lineage > LONGEST_LINEAGE then lineage = '' end
  local epoch, last, horizon = state[1], position(state[2]), position(state[3])
  local whole = epoch and #epoch <= 16 and string.match(epoch, '^[a-z0-9]+$') and last and horizon
  if #fresh_epoch == SHARD_EPOCH then -- the number of shards may have changed; then channels lie elsewhere
    whole = whole and #epoch == SHARD_EPOCH and string.sub(epoch, 1, 2) == string.sub(fresh_epoch, 1, 2)
  else
    whole = whole and #epoch ~= SHARD_EPOCH
  end
  -- The two names with the highest scores: "", and the channel of the newest event, with a score up to `last`.
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

