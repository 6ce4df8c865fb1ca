-- Stores counts of a worker, and renews the worker's lease.
-- A second report with the same serial number changes no counts.
--
-- KEYS  1 workers  zset   worker -> when its lease expires, in ms of Redis TIME
--       2 held     hash   "<table>\n<name>" -> the worker's count; "" -> serial number of its last report;
--                         "=" -> the totals before and after its last report, as JSON
--       3.. tables hash   name -> the total over all workers; names whose total is 0 are left out
-- ARGV  1 worker
--       2 serial number of this report
--       3 milliseconds until the lease expires
--       then for each count: number of its table among KEYS 3.., table, name, count
-- Returns {1, or 0 if the worker's earlier reports are lost,
--          list with two totals for each count, before and after,
--          list of workers whose leases have expired}.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stored, serial = tonumber(redis.call('HGET', KEYS[2], '') or 0), tonumber(ARGV[2])
if stored ~= serial and stored ~= serial - 1 then
  return {0, {}, {}}
end

local changes
if stored == serial then
  changes = cjson.decode(redis.call('HGET', KEYS[2], '=') or '[]')
else
  changes = {}
  for at = 4, #ARGV, 4 do
    local table_key = KEYS[2 + ARGV[at]]
    local name, count, field = ARGV[at + 2], tonumber(ARGV[at + 3]), ARGV[at + 1] .. '\n' .. ARGV[at + 2]
    local change = count - tonumber(redis.call('HGET', KEYS[2], field) or 0)
    if count > 0 then
      redis.call('HSET', KEYS[2], field, count)
    else
      redis.call('HDEL', KEYS[2], field)
    end
    local after = redis.call('HINCRBY', table_key, name, change)
    if after <= 0 then redis.call('HDEL', table_key, name) end
    changes[#changes + 1] = after - change
    changes[#changes + 1] = after
  end
  redis.call('HSET', KEYS[2], '', ARGV[2], '=', #changes > 0 and cjson.encode(changes) or '[]')
end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
return {1, changes, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)}
