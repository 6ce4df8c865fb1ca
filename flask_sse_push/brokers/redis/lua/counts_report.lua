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
-- Returns {1, or 0 if the worker's earlier reports are lost or damaged,
--          list with two totals for each count, before and after,
--          list of workers whose leases have expired,
--          list `foreign` as in foreign.lua}.

local held = typed('HMGET', KEYS[2], '', '=')
local stored, serial = held and count_of(held[1]), tonumber(ARGV[2])
if stored ~= serial and stored ~= serial - 1 then
  return {0, {}, {}, foreign}
end

-- Returns the totals that the last report stored as JSON; nil if they are damaged.
local function stored_totals()
  local readable, totals = pcall(cjson.decode, held[2] or '[]')
  if not readable or type(totals) ~= 'table' or #totals ~= (#ARGV - 3) / 2 then return end
  for _, total in ipairs(totals) do
    if type(total) ~= 'number' then return end
  end
  return totals
end

local changes
if stored == serial then
  changes = stored_totals()
  if not changes then
    note_foreign(KEYS[2], 'the totals of the last report are damaged')
    return {0, {}, {}, foreign}
  end
else
  changes = {}
  for at = 4, #ARGV, 4 do
    local name, count, field = ARGV[at + 2], tonumber(ARGV[at + 3]), ARGV[at + 1] .. '\n' .. ARGV[at + 2]
    local change = count - count_of(redis.call('HGET', KEYS[2], field))
    if count > 0 then
      redis.call('HSET', KEYS[2], field, count)
    else
      redis.call('HDEL', KEYS[2], field)
    end
    local after = add_to_total(KEYS[2 + ARGV[at]], name, change, count)
    changes[#changes + 1] = math.max(0, after - change)
    changes[#changes + 1] = after
  end
  redis.call('HSET', KEYS[2], '', ARGV[2], '=', #changes > 0 and cjson.encode(changes) or '[]')
end
if not typed('ZADD', KEYS[1], now + ARGV[3], ARGV[1]) then
  redis.call('DEL', KEYS[1])
  redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
end
local expired = {}
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)) do
  if is_worker(worker) then
    expired[#expired + 1] = worker
  else
    note_foreign(KEYS[1], 'it contains something that is not the name of a worker')
    redis.call('ZREM', KEYS[1], worker)
  end
end
return {1, changes, expired, foreign}
