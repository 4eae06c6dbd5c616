/*
 * The file of a trace: it has what people said, so it is for its owner alone.
 *
 * Leaf; any thread.
 */
#pragma once

#include <stdbool.h>

/* A descriptor to write to, or a negative error: -EEXIST where there is such a file, unless it is to be overwritten. */
int trace_create(const char *path, bool overwrite);

/* What that error means, for people. */
const char *trace_create_error(int err);
