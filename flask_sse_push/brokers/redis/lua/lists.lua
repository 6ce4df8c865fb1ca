-- Functions that read lists of entries. Other programs may have written into the lists. This text is put in front
-- of history.lua, page.lua and newest.lua.

-- How many bytes an entry counts in the room of a call, beyond its own bytes. base.py has the same number.
local ENTRY_COST = 500
-- At most this many entries of a list are read at once.
local MOST_AT_ONCE = 512

-- The highest id that an entry may have: the broker's newest position. Each script sets it.
local highest_id = 0
-- How many bytes of entries the script may still read, with ENTRY_COST for each. Each script sets it.
local room = 0

-- Returns the id of an entry; 0 if another program has stored the text.
local function id_of(entry)
  local id = tonumber(string.match(entry, '^%S+ (%d+) ')) or 0
  return id <= highest_id and id or 0
end

-- Returns the entry at a 0-based index of a list; false if there is none.
local function entry_at(list, index)
  return typed('LINDEX', list, index) or false
end

-- Returns the entry without its data. It shows the entry's id, and the id of the entry before it.
local function without_data(entry)
  return string.match(entry, '^[^\n]*\n') or entry
end

-- Returns the 0-based index of the first entry whose id is above `after`; the list's length if there is none.
-- The ids of a list grow. So the function looks at both ends, then halves the part of the list that it has to search.
local function first_after(list, after)
  local low, high = 0, typed('LLEN', list) or 0
  local middle = 0
  while low < high do
    local entry = entry_at(list, middle)
    if entry and id_of(entry) <= after then low = middle + 1 else high = middle end
    middle = low == 1 and middle == 0 and high - 1 or math.floor((low + high) / 2)
  end
  return low
end

-- A walk goes through a list, from one entry to the next:
--   list    the key of the list
--   way     1 if the walk goes to newer entries, -1 if it goes to older entries
--   index   the 0-based index of the next entry to read
--   part    entries that were read together, in the order of the walk; `at` is the number of the current one
--   many    how many entries the walk reads next
--   entry   the current entry; nil at the end of the list
--   id      its id
--   rank    a number that is lower for entries that come first

-- Reads the next entries of the walk's list: twice as many each time, as long as there is room for them.
local function read_part(walk)
  local size = walk.entry and #walk.entry or 0
  local many = math.max(1, math.min(walk.many, MOST_AT_ONCE, math.ceil(room / (size + ENTRY_COST))))
  local low, high = walk.index, walk.index + many - 1
  if walk.way < 0 then low, high = math.max(0, walk.index - many + 1), walk.index end
  local part = high >= 0 and typed('LRANGE', walk.list, low, high) or {}
  if walk.way < 0 then
    for at = 1, math.floor(#part / 2) do part[at], part[#part + 1 - at] = part[#part + 1 - at], part[at] end
  end
  walk.part, walk.at, walk.index, walk.many = part, 1, walk.index + walk.way * many, walk.many * 2
end

-- Moves the walk to the next entry. The id of a text of another program is `least`.
local function advance(walk, least)
  walk.at = walk.at + 1
  if walk.at > #walk.part then read_part(walk) end
  walk.entry = walk.part[walk.at]
  if walk.entry then
    walk.id = math.max(least, id_of(walk.entry))
    walk.rank = walk.way * walk.id
  end
end

local function new_walk(list, index, way)
  return {list = list, index = index, way = way, many = 1, part = {}, at = 0}
end

-- A heap has the walks that are not at their ends. The first of them has the lowest rank.

local function push(heap, walk)
  local at = #heap + 1
  while at > 1 do
    local parent = math.floor(at / 2)
    if heap[parent].rank <= walk.rank then break end
    heap[at], at = heap[parent], parent
  end
  heap[at] = walk
end

-- Removes and returns the first walk.
local function pop(heap)
  local first, moved = heap[1], table.remove(heap)
  local at, count = 1, #heap
  while count > 0 do
    local child = 2 * at
    if child < count and heap[child + 1].rank < heap[child].rank then child = child + 1 end
    if child > count or heap[child].rank >= moved.rank then
      heap[at] = moved
      break
    end
    heap[at], at = heap[child], child
  end
  return first
end

-- Removes and returns all walks whose current entries have the id of the first one: these are one event of several
-- channels.
local function pop_event(heap)
  local walks = {pop(heap)}
  while #heap > 0 and heap[1].id == walks[1].id do walks[#walks + 1] = pop(heap) end
  return walks
end
