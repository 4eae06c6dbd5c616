--- "Did you mean": the candidate nearest to a misspelt word.
local M = {}

-- Words longer than this are no misspelt keys, and the distance is quadratic.
local WORD_MAX = 64

--- Damerau–Levenshtein distance (optimal string alignment): insertions, deletions,
--- substitutions and swaps of neighbours cost 1 each. O(#a × #b).
---@param a string
---@param b string
---@return integer
function M.distance(a, b)
  local before, row = {}, {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local above = row
    row = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      local best = math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        best = math.min(best, before[j - 2] + 1)
      end
      row[j] = best
    end
    before = above
  end
  return row[#b]
end

-- About one slip in three letters; a single letter is like any other, so it suggests nothing.
local function cutoff(length)
  if length < 2 then return 0 end
  return math.min(3, math.max(1, math.floor(length / 3)))
end

--- The candidate closest to `word`, whatever its case; the first one of equals. nil when none is near.
---@param word any only strings have a suggestion
---@param candidates string[]
---@return string?
function M.suggest(word, candidates)
  if type(word) ~= "string" or #word > WORD_MAX then return nil end
  local lower = word:lower()
  local closest, smallest
  for _, candidate in ipairs(candidates) do
    local longer = math.max(#word, #candidate)
    local limit = #word < 2 and 0 or cutoff(longer)
    if math.abs(#word - #candidate) <= limit then
      local distance = M.distance(lower, candidate:lower())
      if distance <= limit and distance < (smallest or math.huge) then
        closest, smallest = candidate, distance
      end
    end
  end
  return closest
end

--- ` (did you mean "x"?)`, or "" when nothing is near: to be appended to a message.
---@param word any
---@param candidates string[]
---@return string
function M.hint(word, candidates)
  local closest = M.suggest(word, candidates)
  return closest and ' (did you mean "' .. closest .. '"?)' or ""
end

return M
