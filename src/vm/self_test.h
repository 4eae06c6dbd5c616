/* Finds out whether the guard can end a compiled loop; for guard_start() alone, before any other guard. */
#pragma once

#include <stdbool.h>

bool self_test_passes(void);
