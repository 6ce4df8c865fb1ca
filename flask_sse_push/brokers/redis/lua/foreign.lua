-- Finds data that another program has written into the package's keys. Every script has this text in front; only publish_one.lua stands before it.

local function whole_text(number)
  return string.format('%.0f', number)
end

-- Keys with data of another program that this call met, each key followed by a description of the data.
local foreign = {}

local function note_foreign(key, problem)
  foreign[#foreign + 1] = key
  foreign[#foreign + 1] = problem
end

-- Runs a command. Returns nil if the key has another type than the command expects.
local function typed(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(reply.err, 'WRONGTYPE', 1, true) then error(reply.err, 0) end
  note_foreign(key, 'it is not a key that ' .. command .. ' can use')
end

