# The executable looks for its Lua modules in ../share/perilune/lua, so the two keep their distance.

set(share share/perilune)

install(TARGETS perilune RUNTIME DESTINATION bin)
install(FILES lua/perilune.lua DESTINATION ${share}/lua)
install(DIRECTORY lua/perilune DESTINATION ${share}/lua FILES_MATCHING PATTERN "*.lua")
install(DIRECTORY lua/perilune/templates DESTINATION ${share}/lua/perilune) # hidden files and all
install(DIRECTORY examples DESTINATION ${share}
  FILES_MATCHING PATTERN "*.lua" PATTERN "*.html" PATTERN "*.css")
install(FILES packaging/perilune.socket DESTINATION ${share}/systemd)
# The unit says where things are, which only --prefix tells. Percent signs are specifiers in a unit.
install(CODE "
  string(REPLACE % %% prefix \"\${CMAKE_INSTALL_PREFIX}\")
  file(READ \"${CMAKE_SOURCE_DIR}/packaging/perilune.service\" unit)
  string(REPLACE /usr/local \"\${prefix}\" unit \"\${unit}\")
  file(WRITE \"${CMAKE_BINARY_DIR}/perilune.service\" \"\${unit}\")
  file(INSTALL \"${CMAKE_BINARY_DIR}/perilune.service\" DESTINATION \"\${CMAKE_INSTALL_PREFIX}/${share}/systemd\")")
install(FILES packaging/perilune.1 DESTINATION share/man/man1)
install(FILES packaging/completions/perilune.bash DESTINATION share/bash-completion/completions RENAME perilune)
install(FILES packaging/completions/_perilune DESTINATION share/zsh/site-functions)
install(FILES packaging/completions/perilune.fish DESTINATION share/fish/vendor_completions.d)
install(DIRECTORY docs DESTINATION share/doc/perilune)
install(FILES README.md ARCHITECTURE.md CHANGELOG.md LICENSE DESTINATION share/doc/perilune)
