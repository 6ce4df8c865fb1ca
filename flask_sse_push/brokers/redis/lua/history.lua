-- Reads what several channels had after one position each, at one moment, and marks that moment.
--
-- KEYS  1 state, 2 heads: as in state.lua
--       3.. lists of the channels, in the order of ARGV
-- ARGV  1 fresh epoch, used when the state is missing or damaged
--       2 pub/sub channel that is told of the moment, as "<epoch> <last>"
--       3 PUBLISH, or SPUBLISH on a cluster
--       4.. for each channel: its name, the position after which entries are wanted
-- Returns {epoch, last, horizon, lineage, then for each channel: head or "0", list of entries}.
-- The entries are the end of the list from the newest one at or before the position on, oldest first.
-- Costs O(missed): it walks from the end in steps that double.

local epoch, last, horizon, lineage = open_state(KEYS[1], KEYS[2], ARGV[1])
last = next_position(last)
local last_text = string.format('%.0f', last)
redis.call('HSET', KEYS[1], 'last', last_text)
redis.call(ARGV[3], ARGV[2], epoch .. ' ' .. last_text)

local function id_of(entry)
  return tonumber(string.match(entry, '^%S+ (%d+) ')) or 0
end

local answer = {epoch, last_text, string.format('%.0f', horizon), lineage}
for i = 3, #KEYS do
  local after = tonumber(ARGV[2 * i - 1])
  local head = redis.call('ZSCORE', KEYS[2], ARGV[2 * i - 2])
  local entries = {}
  if head and tonumber(head) > after then
    local step, stop, parts = 16, -1, {}
    while true do
      local part = redis.call('LRANGE', KEYS[i], stop - step + 1, stop)
      if #part == 0 then break end
      table.insert(parts, 1, part)
      if #part < step or id_of(part[1]) <= after then break end
      stop, step = stop - step, step * 2
    end
    for _, part in ipairs(parts) do
      for at, entry in ipairs(part) do
        local next_one = part[at + 1]
        if not (next_one and id_of(next_one) <= after) then entries[#entries + 1] = entry end
      end
    end
  end
  table.insert(answer, head and string.format('%.0f', tonumber(head)) or '0')
  table.insert(answer, entries)
end
return answer
