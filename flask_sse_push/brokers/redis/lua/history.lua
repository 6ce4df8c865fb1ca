-- Reads the entries of several channels, each channel from a position of its own, and makes a new position.
--
-- KEYS  1 state    hash   as in state.lua
--       2 heads    zset   as in state.lua
--       3.. lists  list   of the channels in ARGV, in their order
-- ARGV  1 fresh epoch, used when the state is missing or damaged
--       2 pub/sub name of the inbox to which the new position is sent, as "<epoch> <last>"
--       3 name of the command that sends: PUBLISH, or SPUBLISH on a cluster
--       then for each channel: its name, the position after which entries are read
-- Returns {epoch, last, horizon, lineage, then for each channel: head or "0", list of entries}.
-- `last` is the new position. The entries are in order. The first entry may be the newest entry at or before
-- the position; all further entries are after the position.
-- The script reads a list from its end, in steps that double. So its time depends on how many
-- entries it returns, not on the length of the list.

local epoch, last, horizon, lineage = open_state(KEYS[1], KEYS[2], ARGV[1])
last = next_position(last)
local last_text = string.format('%.0f', last)
redis.call('HSET', KEYS[1], 'last', last_text)
redis.call(ARGV[3], ARGV[2], epoch .. ' ' .. last_text)

local function id_of(entry)
  return tonumber(string.match(entry, '^%S+ (%d+) ')) or 0
end

local reply = {epoch, last_text, string.format('%.0f', horizon), lineage}
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
  table.insert(reply, head and string.format('%.0f', tonumber(head)) or '0')
  table.insert(reply, entries)
end
return reply
