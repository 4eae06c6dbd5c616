# Registers, by what lies there:
#   spec/unit/X_test.c      unit.X      a cmocka program over perilune_core
#   spec/unit/*_spec.lua    lua.unit    busted, all in one
#   spec/server/X_spec.lua  server.X    busted against the executable, whose path is in $PERILUNE
#   spec/faults/X_spec.lua  faults.X    the same, of an executable whose calls fail, where PERILUNE_FAULTS is on
#   spec/behaviour/X_spec.lua  behaviour.X  the executable runs it, on apps in memory: perilune test
#   spec/workbench/X_spec.lua  workbench.X  the same, of perilune.test itself
#   some of spec/server and spec/behaviour  nasty.server.X, nasty.behaviour.X  once more over nasty streams
#   examples/X_spec.lua     example.X   the same, of the examples
#   fuzz/X_fuzz.c           fuzz.X      replays fuzz/corpus/X
#   bench/core/kill_soak.c  soak.kill   some seconds of it
#   bench/workbench.py      soak.workbench  a suite of handler tests, where there is a Python
#   bench/reloads.py        soak.reloads.*  a few of them, where there is a Python
#   bench/containment.py    soak.containment  the same, of a release
#   bench/restarts.py       soak.restarts  the same
#   install.*               what `cmake --install` leaves works
#
# spec/unit mirrors src/ and lua/; connections are tested over streams in memory, with a virtual clock. spec/behaviour
# is what handlers are promised. spec/server is for what needs sockets, processes, signals, the log or the command line.
# spec/faults fails each allocation and each call of the system in turn. spec/corpus is broken handlers, spec/support
# what they all share.
#
# Paths of Lua modules for the specs: .busted.

pkg_check_modules(CMOCKA IMPORTED_TARGET cmocka)
find_program(LUAJIT_COMMAND luajit)
find_program(BUSTED_COMMAND busted)
if(NOT (CMOCKA_FOUND AND LUAJIT_COMMAND AND BUSTED_COMMAND))
  if(NOT PERILUNE_TESTS STREQUAL "AUTO")
    message(FATAL_ERROR "The tests need cmocka, luajit and busted: scripts/setup")
  endif()
  message(STATUS "Built without tests: they need cmocka, luajit and busted")
  return()
endif()

enable_testing()
# For tests that hang. What passes may take long on a machine that is busy with other things.
set(test_timeout_s 1500)

set(test_environment
  ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1
  UBSAN_OPTIONS=print_stacktrace=1
  TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:suppressions=${CMAKE_SOURCE_DIR}/cmake/tsan.supp
  # Specs may do less of the same where everything is several times slower. Not PERILUNE_…: those are settings.
  SANITIZE=${PERILUNE_SANITIZE})

# Debian's busted is a Lua script that starts whatever `lua` is; others wrap theirs in a shell script.
file(STRINGS ${BUSTED_COMMAND} busted_head LIMIT_COUNT 1)
if(busted_head MATCHES "lua")
  set(busted ${LUAJIT_COMMAND} ${BUSTED_COMMAND} --ignore-lua)
else()
  set(busted ${BUSTED_COMMAND})
endif()
# Names each test before it runs: after a time-out the last one is the culprit.
list(APPEND busted --output=gtest)

# test_name(out folder path suffix): spec/unit/a/b_test.c becomes a.b
function(test_name out folder path suffix)
  cmake_path(RELATIVE_PATH path BASE_DIRECTORY ${CMAKE_SOURCE_DIR}/${folder})
  string(REGEX REPLACE "${suffix}$" "" path ${path})
  string(REPLACE "/" "." path ${path})
  set(${out} ${path} PARENT_SCOPE)
endfunction()

# perilune_test(name command...)
function(perilune_test name)
  set(full_name ${PERILUNE_TEST_PREFIX}${name})
  add_test(NAME ${full_name} COMMAND ${ARGN} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${full_name} PROPERTIES TIMEOUT ${test_timeout_s} ENVIRONMENT "${test_environment}")
  # These compare counts of descriptors, memory or connections, or fill the machine.
  if(name MATCHES "\\.(load|limits)$")
    set_tests_properties(${full_name} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()

include(cmake/support.cmake)

# perilune_test_program(name source...)
function(perilune_test_program name)
  string(REPLACE "." "_" target test_${name})
  add_executable(${target} ${ARGN})
  target_link_libraries(${target} PRIVATE perilune_support PkgConfig::CMOCKA)
  # From -O2 on, gcc follows loops over tables of cases and warns of the ones that are not there.
  target_compile_options(${target} PRIVATE -O1)
  target_link_options(${target} PRIVATE $<$<C_COMPILER_ID:GNU>:-fno-lto>)
  set_target_properties(${target} PROPERTIES INTERPROCEDURAL_OPTIMIZATION OFF RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/test OUTPUT_NAME ${name})
endfunction()

list(APPEND test_environment PERILUNE=$<TARGET_FILE:perilune>)

# ---- where races are looked for ----

# That takes ten times as long as anything else, so what has nothing to race with is left out: of the programs those
# that start no thread; of the specifications those of the command line, of what a worker does by itself, and of foreign
# peers.
set(races FALSE)
if("${PERILUNE_SANITIZE}" MATCHES thread)
  set(races TRUE)
endif()
set(alone_server absent agent cli compat compat_udp compiler conn corpus dialect early error_values exec foreign framing
  globals guide hint http_many http_peers http_storm http_toolkit inherited library new places proxy require sandbox
  special start_log surroundings tasks terminal test_command text timeout tls_foreign tls_scanners turn
  websocket_peers workdir)
# An app in memory has one thread, but for the watchdog.
set(races_in_memory containment turn start)

# perilune_is_wanted(out kind name source): in this tree?
function(perilune_is_wanted out kind name source)
  set(is TRUE)
  if(NOT races)
  elseif(kind STREQUAL "unit")
    file(STRINGS ${source} threads REGEX "pthread_|uv_thread_|atomic_" LIMIT_COUNT 1)
    string(COMPARE NOTEQUAL "${threads}" "" is)
  elseif(kind STREQUAL "server" AND name IN_LIST alone_server)
    set(is FALSE)
  elseif(kind MATCHES "^(behaviour|workbench|example)$" AND NOT name IN_LIST races_in_memory)
    set(is FALSE)
  endif()
  set(${out} ${is} PARENT_SCOPE)
endfunction()

# perilune_specs(kind folder [executable])
function(perilune_specs kind folder)
  file(GLOB_RECURSE specs CONFIGURE_DEPENDS ${folder}/*_spec.lua)
  if(PERILUNE_SANITIZE)
    # Those about files, or the command line, and what is there in memory, too: others have the C of them.
    list(FILTER specs EXCLUDE REGEX
      "/server/(browser|build|cli|guide|hint|inherited|library|new|packaging|places|test_command)_spec\\.lua$")
  endif()
  foreach(spec IN LISTS specs)
    test_name(name ${folder} ${spec} _spec.lua)
    perilune_is_wanted(is_wanted ${kind} ${name} ${spec})
    if(is_wanted)
      perilune_test(${kind}.${name} ${busted} ${spec})
      foreach(executable IN LISTS ARGN)
        set_property(TEST ${PERILUNE_TEST_PREFIX}${kind}.${name} APPEND PROPERTY ENVIRONMENT PERILUNE=${executable})
      endforeach()
    endif()
  endforeach()
endfunction()

# What some of them have in common; a test takes of it what it needs.
add_library(perilune_unit STATIC
  spec/unit/conn_steps.c spec/unit/fake_dns.c spec/unit/tls_steps.c spec/unit/vm_calls.c)
target_link_libraries(perilune_unit PUBLIC perilune_support PkgConfig::CMOCKA)
target_include_directories(perilune_unit PUBLIC spec/unit)

file(GLOB_RECURSE unit_sources CONFIGURE_DEPENDS spec/unit/*_test.c)
foreach(source IN LISTS unit_sources)
  test_name(name spec/unit ${source} _test.c)
  perilune_is_wanted(is_wanted unit ${name} ${source})
  if(NOT is_wanted)
    continue()
  endif()
  perilune_test_program(unit.${name} ${source})
  target_link_libraries(test_unit_${name} PRIVATE perilune_unit)
  perilune_test(unit.${name} test_unit_${name})
endforeach()

# What no compiled code of ours has a part in is tested once, and not again under each sanitizer.
if(NOT PERILUNE_SANITIZE)
  perilune_test(lua.unit ${busted} spec/unit)
endif()

file(GLOB fuzz_sources CONFIGURE_DEPENDS fuzz/*_fuzz.c)
if(races)
  set(fuzz_sources)
endif()
foreach(source IN LISTS fuzz_sources)
  test_name(name fuzz ${source} _fuzz.c)
  perilune_test_program(fuzz.${name} ${source} fuzz/replay_main.c)
  perilune_test(fuzz.${name} test_fuzz_${name} fuzz/corpus/${name})
endforeach()

if(PERILUNE_LTO)
  # Built as the tests are: optimised across files it takes a minute.
  perilune_test_program(soak.kill bench/core/kill_soak.c bench/core/harness.c)
  perilune_test(soak.kill test_soak_kill 5)
else()
  perilune_test(soak.kill bench_kill_soak 5)
endif()

# ---- the executable ----

perilune_specs(server spec/server)

if(PERILUNE_FAULTS)
  include(cmake/faults.cmake)
  perilune_specs(faults spec/faults $<TARGET_FILE:perilune_faults>)
endif()

# perilune_own_specs(kind folder suffix): run by the executable itself
function(perilune_own_specs kind folder suffix)
  file(GLOB specs CONFIGURE_DEPENDS ${folder}/*${suffix})
  foreach(spec IN LISTS specs)
    test_name(name ${folder} ${spec} ${suffix})
    perilune_is_wanted(is_wanted ${kind} ${name} ${spec})
    if(is_wanted)
      perilune_test(${kind}.${name} perilune test --timeout=600 --output=gtest ${spec})
    endif()
  endforeach()
endfunction()

perilune_own_specs(behaviour spec/behaviour _spec.lua)
perilune_own_specs(workbench spec/workbench _spec.lua)
perilune_own_specs(example examples _spec.lua)

# ---- over nasty streams ----

if(NOT races)
  include(cmake/nasty.cmake)

  # perilune_nasty_test($NASTY name command...)
  function(perilune_nasty_test nasty name)
    perilune_test(nasty.${name} ${ARGN})
    set_property(TEST ${PERILUNE_TEST_PREFIX}nasty.${name} APPEND PROPERTY ENVIRONMENT
      PERILUNE=$<TARGET_FILE:perilune_nasty> NASTY=${nasty})
  endfunction()

  # In memory a second is soon over, and nobody waits for it.
  perilune_nasty_test(2,1,1000 behaviour.matrix
    perilune_nasty test --timeout=600 --output=gtest spec/behaviour/matrix_spec.lua)
  # ... over sockets somebody does, so it is done where most is found.
  if(PERILUNE_SANITIZE)
    perilune_nasty_test(2 server.matrix ${busted} spec/server/matrix_spec.lua)
  endif()
endif()

find_program(PYTHON_COMMAND python3)
if(PYTHON_COMMAND)
  # That it works: how fast it is, and whether that is fast enough, is a benchmark's to say.
  perilune_test(soak.workbench ${PYTHON_COMMAND} bench/workbench.py --tests 50 --repeat 1 --binary $<TARGET_FILE:perilune>)
  foreach(policy pin migrate)
    perilune_test(soak.reloads.${policy} ${PYTHON_COMMAND} bench/reloads.py --policy ${policy} --times 30 --loops 0
      --connections 40 --segment 1 --warm-up 0.2 --no-judge --binary $<TARGET_FILE:perilune>)
  endforeach()
  # What the build that people run is promised: nobody refused, none left unanswered, no canary silenced.
  if(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT PERILUNE_SANITIZE)
    perilune_test(soak.containment ${PYTHON_COMMAND} bench/containment.py --seconds 2 --corpus 1 --proceed 20 --no-judge
      --binary $<TARGET_FILE:perilune>)
    perilune_test(soak.restarts ${PYTHON_COMMAND} bench/restarts.py --times 10 --binary $<TARGET_FILE:perilune>)
  endif()
endif()

if(PERILUNE_SANITIZE)
  return()
endif()
set(stage ${CMAKE_BINARY_DIR}/stage)
perilune_test(install.tree ${CMAKE_COMMAND} --install ${CMAKE_BINARY_DIR} --prefix ${stage})
perilune_test(install.check ${stage}/bin/perilune check ${stage}/share/perilune/examples/countdown.lua)
perilune_test(install.serves ${stage}/bin/perilune test --output=gtest examples/echo_spec.lua)
perilune_test(install.files ${CMAKE_COMMAND} -E cat ${stage}/share/man/man1/perilune.1
  ${stage}/share/bash-completion/completions/perilune ${stage}/share/zsh/site-functions/_perilune
  ${stage}/share/fish/vendor_completions.d/perilune.fish ${stage}/share/perilune/systemd/perilune.service
  ${stage}/share/perilune/lua/perilune/library/conn.lua ${stage}/share/perilune/lua/perilune/templates/common/.busted)
perilune_test(install.unit grep -F "ExecStart=\"${stage}/bin/perilune\" run" ${stage}/share/perilune/systemd/perilune.service)
perilune_test(install.new ${busted} --filter=template.echo spec/server/new_spec.lua)
set_tests_properties(${PERILUNE_TEST_PREFIX}install.tree PROPERTIES FIXTURES_SETUP ${PERILUNE_TEST_PREFIX}stage)
foreach(name check serves files unit new)
  set(test ${PERILUNE_TEST_PREFIX}install.${name})
  set_tests_properties(${test} PROPERTIES FIXTURES_REQUIRED ${PERILUNE_TEST_PREFIX}stage)
  set_property(TEST ${test} APPEND PROPERTY ENVIRONMENT PERILUNE=${stage}/bin/perilune)
endforeach()
