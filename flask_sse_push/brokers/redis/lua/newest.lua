-- Finds the newest events of several channels together, without reading their data.
--
-- KEYS  1 state    hash   as in state.lua
--       2.. lists  list   of the channels
-- ARGV  1 how many events to find
--       2 only events with lower ids are found
--       3 room: how many bytes of entries the script may look at, with ENTRY_COST for each
-- Returns {the id below which the next call must go on, or "0" if there are no older entries, then the ids that were
-- found, the highest first}.

local wanted, before = tonumber(ARGV[1]), tonumber(ARGV[2])
room = tonumber(ARGV[3])
highest_id = position((typed('HMGET', KEYS[1], 'last') or {})[1]) or 0

-- Whether the event has expired. Its meta data may have the time as `e=<microseconds>`.
local function is_over(entry)
  local meta = string.match(entry, '^%S+ %d+ %S+ (%S+)') or '-'
  local expires = string.match('&' .. meta, '&e=(%d+)')
  return expires and tonumber(expires) <= now
end

local open = {}
for i = 2, #KEYS do
  local channel = new_walk(KEYS[i], first_after(KEYS[i], before - 1) - 1, -1)
  advance(channel, 0)
  if channel.entry then push(open, channel) end
end

local reply, highest = {'0'}, before
while #open > 0 and #reply <= wanted and room > 0 do
  highest = open[1].id
  local counts = false
  for _, channel in ipairs(pop_event(open)) do
    counts = counts or not is_over(channel.entry)
    room = room - #channel.entry - ENTRY_COST
    advance(channel, 0)
    if channel.entry then push(open, channel) end
  end
  if counts then reply[#reply + 1] = whole_text(highest) end
end
if #open > 0 then reply[1] = whole_text(highest) end
return reply
