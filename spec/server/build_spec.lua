--- scripts/build and scripts/run in checkouts that are not where, or whose, they were.
local command = require "spec.support.command"
local has = require "spec.support.has"

-- A checkout in small: the real scripts and presets over a program of one file, so that a build takes a second.
local CMAKE = [[
cmake_minimum_required(VERSION 3.25)
project(small LANGUAGES C)
set_property(GLOBAL PROPERTY TARGET_MESSAGES OFF)
set(PERILUNE_RUNTIME_DIR "" CACHE PATH "")
add_executable(perilune src/main.c)
set_target_properties(perilune PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PERILUNE_RUNTIME_DIR}")
]]

local function program(text) return ('#include <stdio.h>\nint main(void) { puts("%s"); return 0; }\n'):format(text) end

local folder
before_each(function()
  folder = command.folder()
  os.execute(("mkdir -p '%s/one/src' '%s/one/cmake' && cp -r scripts CMakePresets.json '%s/one'"):format(folder, folder,
    folder))
  command.write(folder .. "/one/CMakeLists.txt", CMAKE)
  command.write(folder .. "/one/src/main.c", program "the original")
end)
after_each(function()
  os.execute(("chmod -R u+w '%s'"):format(folder))
  command.remove(folder)
end)

-- In the folder that holds the checkouts: exit code, all that is printed.
local function shell(line)
  local out = command.shell(("cd '%s' && { %s; } 2>&1; echo =$?"):format(folder, line))
  return tonumber(out:match "=(%d+)\n$"), (out:gsub("=%d+\n$", ""))
end

local function succeeds(line)
  local code, out = shell(line)
  assert.equal(0, code, out)
  return out
end

-- Somebody who is not root, to whom the checkout does not belong.
local AS_NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/ "

describe("scripts/build", function()
  it("says nothing when there is nothing to do", function()
    succeeds "one/scripts/build"
    assert.equal("", succeeds "one/scripts/build")
    assert.equal("the original\n", succeeds "one/build/perilune")
  end)

  for how, line in pairs { copied = "cp -a one two", renamed = "mv one two" } do
    it("builds what is in a checkout that was " .. how .. ", and not the original", function()
      succeeds("one/scripts/build && " .. line)
      command.write(folder .. "/two/src/main.c", program "the other")
      has("build/release was made for another checkout", succeeds "two/scripts/build")
      assert.equal("the other\n", succeeds "two/build/perilune")
      if how == "copied" then assert.equal("the original\n", succeeds "one/build/perilune") end
      assert.equal("", succeeds "two/scripts/build")
    end)
  end

  it("builds in a checkout that is reached by a link", function()
    succeeds "ln -s one two && one/scripts/build"
    assert.equal("", succeeds "two/scripts/build")
  end)

  it("fails when CMake fails, and leaves no binary of another checkout behind", function()
    succeeds "one/scripts/build && cp -a one two"
    command.write(folder .. "/two/CMakeLists.txt", CMAKE .. 'message(FATAL_ERROR "no")\n')
    local code, out = shell "two/scripts/build"
    assert.equal(1, code, out)
    assert.equal(1, (shell "test -e two/build/perilune"))
    assert.equal(1, (shell "two/scripts/build"))
  end)

  it("waits for another build of the same", function()
    succeeds "one/scripts/build"
    -- Holds the lock until it is told to let go: no build may have begun before that.
    local out = succeeds [[
      mkfifo go
      : >said # it is looked into before the build has opened it
      flock one/build/release.lock sh -c 'read _ <go; echo let go >>order' &
      until ! flock -n one/build/release.lock true; do :; done
      { one/scripts/build 2>&1; echo built >>order; } >said &
      until grep -q waiting said; do :; done
      echo >go
      wait
      cat said order]]
    assert.equal("scripts/build: waiting for another build of release\nlet go\nbuilt\n", out)
  end)
end)

describe("scripts/run", function()
  before_each(function() succeeds "one/scripts/build && chmod 755 ." end)

  local function as_nobody(line) return shell(AS_NOBODY .. line) end

  it("serves what is up to date in a checkout that cannot be written", function()
    local code, out = as_nobody "one/scripts/run"
    assert.same({ 0, "the original\n" }, { code, out })
  end)

  it("says what is newer than the binary where it cannot build", function()
    succeeds "touch -d '+1 hour' one/src/main.c"
    local code, out = as_nobody "one/scripts/run"
    assert.equal(1, code)
    has("src/main.c is newer than build/perilune: build it as its owner\n", out)
    assert.equal(1, select(2, out:gsub("\n", "")))
  end)

  it("says that nothing is built where it cannot build", function()
    succeeds "rm -r one/build"
    local code, out = as_nobody "one/scripts/run"
    assert.equal(1, code)
    has("nothing is built there", out)
  end)
end)
