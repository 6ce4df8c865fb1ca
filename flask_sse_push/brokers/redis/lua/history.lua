-- Reads the entries of several channels, each channel from a position of its own, and makes a new position.
--
-- KEYS  1 state    hash   as in state.lua
--       2 heads    zset   as in state.lua
--       3.. lists  list   of the channels in ARGV, in their order
-- ARGV  1 fresh epoch, used when the state is missing or damaged
--       2 pub/sub name of the inbox to which the new position is sent, as "<epoch> <last>"
--       3 name of the command that sends: PUBLISH, or SPUBLISH on a cluster
--       then for each channel: its name, the position after which entries are read
-- Returns {epoch, last, horizon, lineage, error, list `foreign` as in state.lua, then for each channel: head or "0",
-- list of entries}.
-- `last` is the new position. If the server refuses writes, `error` is its message, and `last` is the newest position
-- before; else `error` is "". The entries are in order. The first entry may be the newest entry at or before
-- the position; all further entries are after the position.
-- The script reads a list from its end, in steps that double. So its time depends on how many
-- entries it returns, not on the length of the list.

local epoch, last, horizon, lineage = open_state(KEYS[1], KEYS[2], ARGV[1])
if not epoch then return refused end
if write('HSET', KEYS[1], 'last', whole_text(next_position(last))) then last = next_position(last) end
redis.call(ARGV[3], ARGV[2], epoch .. ' ' .. whole_text(last))

local function id_of(entry)
  return tonumber(string.match(entry, '^%S+ (%d+) ')) or 0
end

-- Returns the entries of a list after the position `after`, and perhaps one entry before them.
local function entries_after(list, after)
  local step, stop, parts = 16, -1, {}
  while true do
    local part = typed('LRANGE', list, stop - step + 1, stop)
    if not part or #part == 0 then break end
    table.insert(parts, 1, part)
    if #part < step or id_of(part[1]) <= after then break end
    stop, step = stop - step, step * 2
  end
  local entries = {}
  for _, part in ipairs(parts) do
    for at, entry in ipairs(part) do
      local next_one = part[at + 1]
      if not (next_one and id_of(next_one) <= after) then entries[#entries + 1] = entry end
    end
  end
  return entries
end

local reply = {epoch, whole_text(last), whole_text(horizon), lineage, refused and refused.err or '', foreign}
for i = 3, #KEYS do
  local channel, after = ARGV[2 * i - 2], tonumber(ARGV[2 * i - 1])
  local head = head_of(KEYS[2], channel, KEYS[i], epoch, horizon, last)
  reply[#reply + 1] = whole_text(head)
  reply[#reply + 1] = head > after and entries_after(KEYS[i], after) or {}
end
return reply
