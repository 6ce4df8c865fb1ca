-- Subtracts counts of a dead worker from the totals, and forgets the worker when it has no more counts.
-- Does nothing if the worker's lease has not expired, unless the worker retires.
--
-- KEYS  1 workers  zset   as in counts_report.lua
--       2 held     hash   as in counts_report.lua
--       3.. tables hash   as in counts_report.lua
-- ARGV  1 worker
--       2 "1" if the worker retires (stops and has no counts), else "0"
--       then for each count: number of its table among KEYS 3.., table, name
-- Returns {1 if the worker is forgotten or its lease has not expired, else 0,
--          list with two totals for each count, before and after: both 0 if the worker had no such count}.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ms = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
if until_ms > now and ARGV[2] ~= '1' then
  return {1, {}}
end

local changes = {}
if ARGV[2] ~= '1' then
  redis.call('HSET', KEYS[2], '', -9) -- if the worker is alive after all, its next report is refused
end
for at = 3, #ARGV, 3 do
  local table_key, field = KEYS[2 + ARGV[at]], ARGV[at + 1] .. '\n' .. ARGV[at + 2]
  local held = tonumber(redis.call('HGET', KEYS[2], field) or 0)
  local after = 0
  if held > 0 then
    redis.call('HDEL', KEYS[2], field)
    after = redis.call('HINCRBY', table_key, ARGV[at + 2], -held)
    if after <= 0 then redis.call('HDEL', table_key, ARGV[at + 2]) end
  end
  changes[#changes + 1] = after + held
  changes[#changes + 1] = after
end
redis.call('HDEL', KEYS[2], '=')
if redis.call('HLEN', KEYS[2]) > 1 then
  return {0, changes}
end
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[1], ARGV[1])
return {1, changes}
