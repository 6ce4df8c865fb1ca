-- Reads the entries of several channels, each channel from a position of its own, and makes a new position.
--
-- KEYS  1 state    hash   as in state.lua
--       2 heads    zset   as in state.lua
--       3.. lists  list   of the channels in ARGV, in their order
-- ARGV  1 "<epoch> <secret>" for a new epoch, which begins if the state is missing or damaged
--       2 pub/sub name of the inbox to which the new position is sent, as "<epoch> <last>"
--       3 name of the command that sends: PUBLISH, or SPUBLISH on a cluster
--       4 room: how many bytes the entries may have together, with ENTRY_COST for each
--       then for each channel: its name, the position after which entries are read
-- Returns {epoch, last, horizon, lineage, clock, error, list `foreign` as in state.lua, "0", the secret of the epoch, then for each
-- channel: head or "0", list of entries, "1" if there was no room for older entries after the position, else "0"}.
-- If there is no room for all entries of a channel, the reply has none of them. Only the first channel with entries
-- then has its newest entries in the reply.
-- `clock` is the time by which events expire. `last` is the new position, and `error` is "". If the server refuses
-- writes, `error` is the server's message, and `last` is the newest position so far. The entries are in order. The first entry may be the newest entry at or before the
-- position; all further entries are after the position.
-- The script reads a list from its end, in steps that double as long as there is room. So its time depends on how
-- many entries it returns, not on the length of the list.

local epoch, last, horizon, lineage, secret = open_state(KEYS[1], KEYS[2], ARGV[1])
if not epoch then return refused end
local last, clock = take_position(KEYS[1], last)
highest_id = last
redis.call(ARGV[3], ARGV[2], epoch .. ' ' .. whole_text(last))

room = tonumber(ARGV[4])
local entry_size = 0

-- Returns the newest entries of a list up to the first one at or before the position, and "1" if there was no room for
-- all of them, else "0". The newest entry comes first.
local function newest_entries(list, after)
  local entries, stop, step = {}, -1, 16
  while room > 0 do
    -- The entries of a list often have the same size. So a step reads little more than there is room for.
    step = math.max(1, math.min(step, MOST_AT_ONCE, math.ceil(room / (entry_size + ENTRY_COST))))
    local part = typed('LRANGE', list, stop - step + 1, stop) or {}
    for at = #part, 1, -1 do
      if room <= 0 then return entries, '1' end
      entries[#entries + 1] = part[at]
      if id_of(part[at]) <= after then return entries, '0' end
      entry_size = #part[at]
      room = room - entry_size - ENTRY_COST
    end
    if #part < step then return entries, '0' end
    stop, step = stop - step, step * 2
  end
  return entries, '1'
end

local function in_order(entries)
  local turned = {}
  for at = #entries, 1, -1 do turned[#turned + 1] = entries[at] end
  return turned
end

local reply = {epoch, whole_text(last), whole_text(horizon), lineage, whole_text(clock)}
reply[6], reply[7], reply[8] = refused and refused.err or '', foreign, '0'
reply[9] = secret
local first = true
for i = 3, #KEYS do
  local channel, after = ARGV[2 * i - 1], tonumber(ARGV[2 * i])
  local head = head_of(KEYS[2], channel, KEYS[i], epoch, horizon, last)
  local entries, is_cut = {}, '0'
  if head > after then
    entries, is_cut = newest_entries(KEYS[i], after)
    if is_cut == '1' and not first then entries = {} end
    first = first and #entries == 0
  end
  reply[#reply + 1] = whole_text(head)
  reply[#reply + 1] = in_order(entries)
  reply[#reply + 1] = is_cut
end
return reply
