/*
 * The limit of open files, and what it leaves. Whoever opens a file for another (Lua's loaders, libuv) may hide why
 * that failed, or abort; these tell.
 *
 * Leaf. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Raises the soft limit to the hard one. Returns what it is now. */
unsigned descriptors_raise_limit(void);

/* Can n more be opened now? */
bool descriptors_left(unsigned n);

/* For a log: that the limit is too low, and what it is. Returns text. */
const char *descriptors_explain(char *text, size_t size);
