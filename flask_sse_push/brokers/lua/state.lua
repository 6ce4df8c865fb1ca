-- The beginning of both other scripts: what they keep beside the lists, read and checked.
--
-- state  hash  epoch, last (highest position taken), horizon (a channel without a head had no event after it)
-- heads  zset  channel -> id of its newest event; "" is always there, with score +inf

-- Positions above are refused: below 2^53 a double counts exactly. As a clock they mean the year 2255.
local LATEST = 9e15

local function position(text)
  local number = text and string.match(text, '^%d+$') and tonumber(text)
  return number and number <= LATEST and number
end

-- Returns epoch, last, horizon. A state that is missing or damaged, even by a foreign hand, ends its epoch:
-- its positions can not be trusted, and every client that held one is told.
local function open_state(state_key, heads_key, fresh_epoch)
  local state = redis.call('HMGET', state_key, 'epoch', 'last', 'horizon')
  local epoch, last, horizon = state[1], position(state[2]), position(state[3])
  local whole = epoch and #epoch <= 16 and string.match(epoch, '^[a-z0-9]+$') and last and horizon
  if whole and redis.call('ZSCORE', heads_key, '') then
    return epoch, last, horizon
  end
  redis.call('DEL', state_key, heads_key)
  redis.call('HSET', state_key, 'epoch', fresh_epoch, 'last', 0, 'horizon', 0)
  redis.call('ZADD', heads_key, '+inf', '')
  return fresh_epoch, 0, 0
end

local function next_position(last)
  local time = redis.call('TIME')
  return math.max(last + 1, time[1] * 1000000 + time[2])
end

