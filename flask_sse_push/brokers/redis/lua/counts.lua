-- Reads and changes counts. This text is put in front of counts_report.lua and of counts_reap.lua.

local time = redis.call('TIME')
-- The server's clock, in milliseconds.
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- At most this high is a count. Above 2^53, doubles are not exact.
local MOST = 1e15

-- Returns the number in a field of `held`; 0 if the field is missing or has no valid number.
local function count_of(text)
  local count = text and string.match(text, '^%-?%d+$') and tonumber(text) or 0
  return math.abs(count) <= MOST and count or 0
end

local function is_worker(name)
  return #name <= 100 and string.match(name, '^[%w_-]+$') ~= nil
end

-- Adds `change` to the total of a name and returns the new total, at least 0. If another program has damaged the
-- total, nobody knows the counts of the other workers: the total then becomes `own`, the count of this worker.
local function add_to_total(table_key, name, change, own)
  local stored = typed('HGET', table_key, name)
  if stored == nil then
    redis.call('DEL', table_key)
    change = own
  elseif stored and stored ~= whole_text(count_of(stored)) then
    note_foreign(table_key, 'the total of ' .. name .. ' is not a number')
    redis.call('HDEL', table_key, name)
    change = own
  end
  local after = redis.call('HINCRBY', table_key, name, change)
  if after <= 0 then redis.call('HDEL', table_key, name) end
  return math.max(0, after)
end
