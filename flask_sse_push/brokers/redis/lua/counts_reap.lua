-- Takes counts of a dead worker off the totals; without counts, lets go of one that holds nothing.
--
-- KEYS  1 workers, 2 held, 3.. tables: as in ledger_tell.lua
-- ARGV  1 worker, 2 "1" when it may be alive: it has retired
--       then for each count: number of its table among KEYS 3.., table, name
-- Returns {1 when it is gone, else 0; list of before and after for each count, 0 and 0 where it held none}.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ms = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
if until_ms > now and ARGV[2] ~= '1' then
  return {1, {}}
end

local changes = {}
if ARGV[2] ~= '1' then
  redis.call('HSET', KEYS[2], '', -9) -- should it wake up, it must not go on as if nothing had happened
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
