-- Reads the oldest entries after a position of several channels together, up to a number of bytes, and makes a new
-- position.
--
-- KEYS  1 state    hash   as in state.lua
--       2 heads    zset   as in state.lua
--       3.. lists  list   of the channels in ARGV, in their order
-- ARGV  1 "<epoch> <secret>" for a new epoch, which begins if the state is missing or damaged
--       2 pub/sub name of the inbox to which the new position is sent, as "<epoch> <last>"
--       3 name of the command that sends: PUBLISH, or SPUBLISH on a cluster
--       4 room: how many bytes the entries may have together, with ENTRY_COST for each
--       then for each channel: its name, the position after which entries are read
-- Returns {epoch, last, horizon, lineage, clock, error, list `foreign` as in state.lua, until, the secret of the epoch, then for each
-- channel: head or "0", list of entries, "1" if these reach up to the end of the channel's list, else "0"}.
-- `last`, `clock` and `error` are as in history.lua. `until` is the position up to which no entry is missing: `last`
-- if no entries follow. The first entry of a channel may be the newest entry at or before the position, without its
-- data. A channel without entries up to `until` has the next entry after `until` instead, without its data.

local epoch, last, horizon, lineage, secret = open_state(KEYS[1], KEYS[2], ARGV[1])
if not epoch then return refused end
local last, clock = take_position(KEYS[1], last)
highest_id = last
redis.call(ARGV[3], ARGV[2], epoch .. ' ' .. whole_text(last))

room = tonumber(ARGV[4])
local found, open = {}, {} -- `open` is a heap of the channels that have further entries
for i = 3, #KEYS do
  local after = tonumber(ARGV[2 * i])
  local head = head_of(KEYS[2], ARGV[2 * i - 1], KEYS[i], epoch, horizon, last)
  local channel = new_walk(KEYS[i], 0, 1)
  channel.head, channel.entries = head, {}
  found[#found + 1] = channel
  if head > after then
    channel.index = first_after(KEYS[i], after)
    local before = channel.index > 0 and entry_at(KEYS[i], channel.index - 1)
    if before then channel.entries[1] = without_data(before) end
    advance(channel, after + 1) -- another program may have stored any text
    if channel.entry then push(open, channel) end
  end
end

-- Takes the events with the lowest ids of all channels.
local until_id, taken = last, 0
while #open > 0 do
  local lowest = open[1].id
  if room <= 0 then
    -- If `lowest` was taken before, only texts of other programs follow it. The next page begins behind them.
    until_id = math.min(last, lowest == taken and lowest or lowest - 1)
    break
  end
  taken = lowest
  for _, channel in ipairs(pop_event(open)) do
    channel.entries[#channel.entries + 1] = channel.entry
    room = room - #channel.entry - ENTRY_COST
    advance(channel, lowest)
    if channel.entry then push(open, channel) end
  end
end

local reply = {epoch, whole_text(last), whole_text(horizon), lineage, whole_text(clock)}
reply[6], reply[7], reply[8] = refused and refused.err or '', foreign, whole_text(until_id)
reply[9] = secret
for _, channel in ipairs(found) do
  reply[#reply + 1] = whole_text(channel.head)
  if channel.entry and #channel.entries == 0 then -- shows whether events before it are gone; its data is not needed
    channel.entries[1] = without_data(channel.entry)
  end
  reply[#reply + 1] = channel.entries
  reply[#reply + 1] = channel.entry and '0' or '1'
end
return reply
