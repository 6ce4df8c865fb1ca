-- Finds the newest events of several channels together, without reading their data.
--
-- KEYS  1 state    hash   as in state.lua
--       2.. lists  list   of the channels
-- ARGV  1 how many events to find
--       2 only events with lower ids are found
--       3 how many entries the script looks at; fewer if there are many channels, because each step compares them
-- Returns {the id below which the next call must go on, or "0" if there are no older entries, then the ids that were
-- found, the highest first}.

-- How many entries a step counts for each channel that it compares. With 50 channels, the script looks at about 2,000
-- entries: it keeps the server busy for some 20 ms.
local STEP_COST = 0.1

local wanted, before, steps = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
highest_id = position((typed('HMGET', KEYS[1], 'last') or {})[1]) or 0

-- Whether the event has expired. Its meta data may have the time as `e=<microseconds>`.
local function is_over(entry)
  local meta = string.match(entry, '^%S+ %d+ %S+ (%S+)') or '-'
  local expires = string.match('&' .. meta, '&e=(%d+)')
  return expires and tonumber(expires) <= now
end

local open = {}
for i = 2, #KEYS do
  local index = first_after(KEYS[i], before - 1) - 1
  local entry = index >= 0 and entry_at(KEYS[i], index)
  if entry then open[#open + 1] = {list = KEYS[i], index = index, entry = entry, id = id_of(entry)} end
end

local reply, highest = {'0'}, before
while #open > 0 and #reply <= wanted and steps > 0 do
  highest = open[1].id
  steps = steps - STEP_COST * #open
  for at = 2, #open do highest = math.max(highest, open[at].id) end
  local counts = false
  for at = #open, 1, -1 do
    local channel = open[at]
    if channel.id == highest then
      steps = steps - 1
      counts = counts or not is_over(channel.entry)
      channel.index = channel.index - 1
      channel.entry = channel.index >= 0 and entry_at(channel.list, channel.index)
      if channel.entry then channel.id = id_of(channel.entry) else table.remove(open, at) end
    end
  end
  if counts then reply[#reply + 1] = whole_text(highest) end
end
if #open > 0 then reply[1] = whole_text(highest) end
return reply
