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
--          list with two totals for each count, before and after: both 0 if the worker had no such count,
--          list `foreign` as in foreign.lua}.

local until_ms = tonumber(typed('ZSCORE', KEYS[1], ARGV[1]) or 0)
if until_ms > now and ARGV[2] ~= '1' then
  return {1, {}, foreign}
end

local changes = {}
-- If the worker is alive after all, its next report is refused because of this serial number.
if not typed('HLEN', KEYS[2]) then
  redis.call('DEL', KEYS[2])
elseif ARGV[2] ~= '1' then
  redis.call('HSET', KEYS[2], '', -9)
end
for at = 3, #ARGV, 3 do
  local field = ARGV[at + 1] .. '\n' .. ARGV[at + 2]
  local held, after = count_of(redis.call('HGET', KEYS[2], field)), 0
  redis.call('HDEL', KEYS[2], field)
  if held > 0 then after = add_to_total(KEYS[2 + ARGV[at]], ARGV[at + 2], -held, 0) end
  changes[#changes + 1] = after + held
  changes[#changes + 1] = after
end
redis.call('HDEL', KEYS[2], '=')
if redis.call('HLEN', KEYS[2]) > 1 then
  return {0, changes, foreign}
end
redis.call('DEL', KEYS[2])
if not typed('ZREM', KEYS[1], ARGV[1]) then redis.call('DEL', KEYS[1]) end
return {1, changes, foreign}
