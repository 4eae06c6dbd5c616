--- What a specification has opened, and has to end. Internal.
---
--- Scopes are within each other: a file's, a test's. What is opened belongs to the innermost.
local transcript = require "perilune.test.transcript"

local M = {}

---@class perilune.test.thing
---@field left fun(self): string? what there is still of it, for people; nil: it is over
---@field logged? fun(self): table[] of an app: what it has logged
---@field dispose fun(self) ends it, whatever there is

local scopes = { {} }

function M.open_scope() scopes[#scopes + 1] = {} end

---@param thing perilune.test.thing
function M.add(thing)
  local scope = scopes[#scopes]
  scope[#scope + 1] = thing
end

--- It is over: a test that opens many things one after another need not keep them all.
---@param thing perilune.test.thing
function M.forget(thing)
  for i = #scopes, 1, -1 do
    for k = #scopes[i], 1, -1 do
      if scopes[i][k] == thing then
        table.remove(scopes[i], k)
        return
      end
    end
  end
end

--- What handlers of the innermost scope's apps have failed with, for people.
---@return string? nil: nothing
function M.about_faults()
  local entries = {}
  for _, thing in ipairs(scopes[#scopes]) do
    for _, entry in ipairs(thing.logged and thing:logged() or {}) do
      if entry.excerpt then entries[#entries + 1] = entry end
    end
  end
  return transcript.log(entries)
end

--- Ends all that belongs to the scope, and the scope.
---@return string? left what had not been ended
function M.close_scope()
  local scope, texts = table.remove(scopes), {}
  for _, thing in ipairs(scope) do texts[#texts + 1] = thing:left() end
  for i = #scope, 1, -1 do scope[i]:dispose() end
  return #texts > 0 and table.concat(texts, "\n") or nil
end

return M
