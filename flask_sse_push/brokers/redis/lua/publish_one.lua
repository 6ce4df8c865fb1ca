-- Stores and sends one event of one channel, in fewer steps than publish.lua. Most calls are of this kind.
--
-- This text stands in front of foreign.lua, state.lua and publish.lua, because to define their functions takes time too.
-- KEYS, ARGV and the reply are those of publish.lua. If anything is unusual, such as a new channel, a new epoch, other
-- policies or damaged data, the call stores nothing here and goes on with publish.lua. The first call of each tenth of a
-- second goes on with publish.lua too: only publish.lua looks at all heads, and removes old ones. This text does not ask
-- for the right to send: if the live message is refused, it takes the event back, and publish.lua tells why.

-- Returns the reply, or nil if publish.lua must do the work.
local function publish_one()
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local state = redis.pcall('HMGET', KEYS[1], 'epoch', 'last', 'horizon', 'server', 'secret', 'policies', 'longest')
  local epoch, server = state[1], state[4]
  if not epoch or not server or state[6] ~= ARGV[3] then return end

  -- The checks of `read_state` and `open_state` in state.lua, without the check of all heads.
  local last, horizon = string.match(state[2] or '', '^%d+$'), string.match(state[3] or '', '^%d+$')
  local of, secret = string.match(state[5] or '', '^([a-z0-9]+) (%x+)$')
  if not last or not horizon or of ~= epoch or #epoch > 16 or #state[5] > 64 then return end
  local is_shard = string.find(ARGV[5], ' ', 1, true) == 7
  if (#epoch == 6) ~= is_shard or is_shard and string.sub(epoch, 1, 2) ~= string.sub(ARGV[5], 1, 2) then return end
  last = tonumber(last)
  if tonumber(horizon) > last or last > 9e15 or last > now + 86400 * 1000000 then return end
  local info = redis.pcall('INFO', 'replication')
  if type(info) ~= 'string' or not string.find(info, 'master_replid:' .. server .. '\r', 1, true) then return end

  local id = math.max(last + 1, now)
  if math.floor(id / 100000) ~= math.floor(last / 100000) then return end
  -- If the field `longest` must be written again, publish.lua does that.
  local longest, valid = string.match(state[7] or '', '^(%d+) (%d+)$')
  longest, valid = tonumber(longest), tonumber(valid)
  local own = tonumber(ARGV[2])
  if not valid or longest < own or valid > id + 2000 * longest or valid < id + (longest == own and 1000 * own or 1) then
    return
  end

  local channel = ARGV[9]
  local prev = redis.pcall('ZSCORE', KEYS[2], channel)
  if type(prev) ~= 'string' or not string.find(prev, '^[1-9]%d*$') or tonumber(prev) > last then return end

  local id_text = string.format('%.0f', id)
  local head = epoch .. ' ' .. id_text .. ' ' .. prev .. ' -'
  local entry = head .. '\n' .. ARGV[12]
  local length = redis.pcall('RPUSH', KEYS[4], entry)
  if type(length) == 'table' then return end -- the key has another type, or the server refuses writes
  local message = redis.sha1hex(secret .. channel .. ' ' .. head .. secret) .. ' ' .. entry
  if type(redis.pcall(ARGV[4], ARGV[1] .. channel, message)) == 'table' then
    redis.call('LTRIM', KEYS[4], 0, -2)
    return
  end
  local size, ttl = string.match(ARGV[10], '^(%d+) (%d+)')
  if length > tonumber(size) then redis.call('LTRIM', KEYS[4], '-' .. size, -1) end
  redis.call('PEXPIRE', KEYS[4], ttl)
  redis.call('ZADD', KEYS[2], id_text, channel)
  redis.call('HSET', KEYS[1], 'last', id_text)
  local reply = epoch .. ' ' .. id_text .. ' 1'
  redis.call('SET', KEYS[3], reply, 'PX', ARGV[6])
  return reply
end

if ARGV[7] == 'new' and ARGV[8] == '1' and ARGV[11] == '1' and not ARGV[13] and string.sub(ARGV[10], -2) == ' 0' then
  local reply = publish_one()
  if reply then return reply end
end

