-- Functions that read lists of entries. Other programs may have written into the lists. This text is put in front
-- of history.lua, page.lua and newest.lua.

-- How many bytes an entry counts in the room of a call, beyond its own bytes. base.py has the same number.
local ENTRY_COST = 500

-- The highest id that an entry may have: the broker's newest position. Each script sets it.
local highest_id = 0

-- Returns the id of an entry; 0 if another program has stored the text.
local function id_of(entry)
  local id = tonumber(string.match(entry, '^%S+ (%d+) ')) or 0
  return id <= highest_id and id or 0
end

-- Returns the entry at a 0-based index of a list; false if there is none.
local function entry_at(list, index)
  return typed('LINDEX', list, index) or false
end

-- Returns the 0-based index of the first entry whose id is above `after`; the list's length if there is none.
-- The ids of a list grow, so the function halves the part of the list that it has to search.
local function first_after(list, after)
  local low, high = 0, typed('LLEN', list) or 0
  while low < high do
    local middle = math.floor((low + high) / 2)
    local entry = entry_at(list, middle)
    if entry and id_of(entry) <= after then low = middle + 1 else high = middle end
  end
  return low
end
