-- Reads and checks the state of a shard. This text and foreign.lua are put in front of publish.lua, history.lua,
-- page.lua and newest.lua.
--
-- state  hash  epoch
--              secret   "<epoch> <secret>"; live messages carry a proof that the publisher knows the secret
--              last     the highest position so far
--              horizon  a channel that is not in heads had no event after this position
--              server   replication id of the server that wrote the state
--              time     the server's clock at the last history call, in microseconds
--              behind   by how much the server's clock was set back altogether, in microseconds
--              policies digest of the channel policies of the app's workers, or of the first publisher (declared.py)
--              rules    this digest, when the worker started that declared it, and the policies as JSON
--              other    the last process with other policies: when it published, its id, and its policies as in rules;
--                       only Python reads rules and other
--              longest  how long a publisher keeps lists, and until when that holds (see publish.lua)
--              lineage  the earlier epochs whose older events are kept (see open_state), newest first:
--                       "<epoch>:<last position that is still valid> ..."
-- heads  zset  channel -> id of its newest event; also "" with score +inf, which shows that the zset is complete
--
-- Other programs may write anything into these keys. So every value is checked before it is used.

-- The highest valid position. It is a date in the year 2255, and below 2^53, up to which doubles are exact.
local LATEST = 9e15
-- At most this far, in microseconds, may a position be ahead of the server's clock. Positions are ahead after the
-- clock was set back. A clock that shows local time instead of UTC is wrong by at most 14 hours.
local AHEAD = 86400 * 1000000
-- At most this many heads are mended in one call.
local MOST_MENDED = 100
-- How many characters an epoch has if there are several shards. Such an epoch begins with the shard's number and
-- the number of shards.
local SHARD_EPOCH = 6

-- At most this many earlier epochs are remembered. Each failover begins an epoch; a client that missed more
-- failovers gets a reset.
local MOST_EPOCHS = 8
-- At most this many bytes in a lineage. A longer lineage was written by another program and is ignored, because
-- reading it would take long.
local LONGEST_LINEAGE = 300

local time = redis.call('TIME')
-- The server's clock, in microseconds.
local now = time[1] * 1000000 + time[2]

-- The error of the first write that the server refused: a replica, or a server without memory, disk or replicas.
local refused

-- Runs a command that writes, unless the server refuses writes. Returns whether the command has run.
local function write(...)
  local reply = refused or redis.pcall(...)
  if type(reply) == 'table' and reply.err then refused = reply end
  return not refused
end

local function position(text)
  local number = text and string.match(text, '^%d+$') and tonumber(text)
  return number and number <= LATEST and number
end

local function is_epoch(text)
  return text and #text <= 16 and string.match(text, '^[a-z0-9]+$')
end

-- Returns the server's replication id. The id changes when a replica becomes the primary and when a server
-- starts. Returns "unknown" if INFO is forbidden.
local function replication_id()
  local info = redis.pcall('INFO', 'replication')
  local _, before = string.find(type(info) == 'string' and info or '', 'master_replid:', 1, true)
  return before and string.match(info, '^%w+', before + 1) or 'unknown' -- one pattern for both would take longer
end

-- Returns the two words of a field `secret`: an epoch, and the secret of this epoch. Returns nothing if the text has
-- another form.
local function secret_in(text)
  if text and #text <= 64 then return string.match(text, '^([a-z0-9]+) (%x+)$') end
end

local function joined(epoch, last, lineage)
  local words = {epoch .. ':' .. whole_text(last)}
  for word in string.gmatch(lineage, '[a-z0-9]+:%d+') do
    if #words < MOST_EPOCHS then words[#words + 1] = word end
  end
  return table.concat(words, ' ')
end

-- Replaces the scores in heads that are no positions by `last`. The channel of such a score is then treated as if
-- events up to `last` had been lost. Returns whether every score in heads is at most `last` now.
local function mend_heads(heads_key, last)
  local too_high = '(' .. whole_text(now + AHEAD)
  local names = redis.call('ZREVRANGEBYSCORE', heads_key, '+inf', too_high, 'LIMIT', 0, MOST_MENDED)
  if #names >= MOST_MENDED or redis.call('ZSCORE', heads_key, '') ~= 'inf' then return false end
  for _, name in ipairs(names) do
    if name ~= '' then
      note_foreign(heads_key, 'the score of ' .. name .. ' is no position')
      write('ZADD', heads_key, whole_text(last), name)
    end
  end
  local top = redis.call('ZREVRANGE', heads_key, 0, 1, 'WITHSCORES')
  return tonumber(top[4] or 0) <= last
end

-- Whether heads is complete and no event in heads is later than `last`.
local function has_all_heads(heads_key, last)
  -- The two names with the highest scores: "", and the channel of the newest event, with a score up to `last`.
  local top = typed('ZREVRANGE', heads_key, 0, 1, 'WITHSCORES')
  if not top or not top[1] then return false end
  if top[1] == '' and top[2] == 'inf' and tonumber(top[4] or 0) <= last then return true end
  return mend_heads(heads_key, last)
end

-- The fields `policies` and `longest` of the state; '' if they are missing.
local noted_policies, noted_longest = '', ''

-- Returns epoch, last, horizon, lineage, secret and server if the state is whole, and nil if it is missing or damaged.
local function read_state(state_key, heads_key, fresh_epoch)
  local state = typed('HMGET', state_key, 'epoch', 'last', 'horizon', 'server', 'lineage', 'secret', 'policies', 'longest')
  if not state then return end
  noted_policies, noted_longest = state[7] or '', state[8] or ''
  local epoch, last, horizon = state[1], position(state[2]), position(state[3])
  local secret_of, secret = secret_in(state[6])
  local whole = is_epoch(epoch) and epoch == secret_of
    and last and horizon and horizon <= last and last <= now + AHEAD
  if not whole then
    if epoch then note_foreign(state_key, 'epoch, secret, last or horizon has no valid value') end
    return
  end
  if #fresh_epoch == SHARD_EPOCH then -- the number of shards may have changed; then channels lie elsewhere
    whole = #epoch == SHARD_EPOCH and string.sub(epoch, 1, 2) == string.sub(fresh_epoch, 1, 2)
  else
    whole = #epoch ~= SHARD_EPOCH
  end
  if not whole or not has_all_heads(heads_key, last) then return end
  local lineage = state[5] or ''
  if #lineage > LONGEST_LINEAGE then lineage = '' end
  return epoch, last, horizon, lineage, secret, state[4]
end

-- Returns epoch, last, horizon, lineage and the secret of the epoch. `fresh` is the field `secret` of a new epoch.
--
-- If the state is missing or damaged, a fresh epoch begins, because the positions of the old epoch cannot be
-- trusted. Every client with a cursor of the old epoch gets a reset.
--
-- If the state was written by another server, or by this server before a restart, the newest writes may be lost:
-- a replica can lag behind, and a snapshot can be old. But every write up to `last` is there, because replicas and
-- snapshots keep the order of writes. So a fresh epoch continues the old epoch: cursors of the old epoch up to
-- `last` stay valid, and clients with higher cursors get a reset.
--
-- If the server refuses writes, no epoch begins, and `refused` is set. Nobody can publish then, so the old epoch
-- still holds up to `last`. Returns nothing if there is no old epoch either.
local function open_state(state_key, heads_key, fresh)
  local server = replication_id()
  local fresh_epoch, fresh_secret = secret_in(fresh)
  local epoch, last, horizon, lineage, secret, writer = read_state(state_key, heads_key, fresh_epoch)
  if epoch then
    if writer == server then return epoch, last, horizon, lineage, secret end
    local longer = joined(epoch, last, lineage)
    if not write('HSET', state_key, 'epoch', fresh_epoch, 'secret', fresh, 'server', server, 'lineage', longer) then
      return epoch, last, horizon, lineage, secret
    end
    return fresh_epoch, last, horizon, longer, fresh_secret
  end
  if not write('DEL', state_key, heads_key) then return end
  noted_policies, noted_longest = '', ''
  redis.call('HSET', state_key, 'epoch', fresh_epoch, 'secret', fresh, 'last', 0, 'horizon', 0, 'server', server)
  redis.call('ZADD', heads_key, '+inf', '')
  return fresh_epoch, 0, 0, '', fresh_secret
end

-- Returns the id of the newest entry in a list if the entry is later than `horizon`, so that its channel should be
-- in heads; else 0.
local function unlisted_id(list, epoch, horizon, last)
  local entry = typed('LINDEX', list, -1)
  local of, digits = string.match(entry or '', '^(%w+) (%d+) ')
  local id = of == epoch and position(digits) or 0
  return id > horizon and id <= last and id or 0
end

-- Returns the id of the channel's newest event, and 0 if the channel had no event after `horizon`. Returns `last` if
-- the id in heads is not valid: then nobody knows which events the channel had.
local function head_of(heads_key, channel, list, epoch, horizon, last)
  local score = redis.call('ZSCORE', heads_key, channel)
  local id = score and tonumber(score) or unlisted_id(list, epoch, horizon, last)
  if score and id > 0 and id <= last and id == math.floor(id) or not score and id == 0 then return id end
  if score then id = last end
  note_foreign(heads_key, 'the score of ' .. channel .. ' is missing or no position')
  write('ZADD', heads_key, whole_text(id), channel)
  return id
end

-- Returns the time by which events expire, and `behind`. The time is the server's clock, but it never goes back: what
-- was lost when the clock was set back is added.
local function expiry_clock(state_key)
  local noted = redis.call('HMGET', state_key, 'time', 'behind')
  local before, behind = position(noted[1]) or now, position(noted[2]) or 0
  if behind > LATEST / 2 then behind = 0 end
  if before > now and before <= now + AHEAD then behind = behind + before - now end
  return now + behind, behind
end

local function next_position(last)
  return math.max(last + 1, now)
end

-- Makes a new position, and notes the clock. Returns the position, and the time by which events expire. Returns the
-- old position if the server refuses writes.
local function take_position(state_key, last)
  local clock, behind = expiry_clock(state_key)
  local position_text = whole_text(next_position(last))
  if write('HSET', state_key, 'last', position_text, 'time', whole_text(now), 'behind', whole_text(behind)) then
    last = next_position(last)
  end
  return last, clock
end
