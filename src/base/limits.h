/*
 * What the system lets a process have besides descriptors: why something was refused, for people.
 *
 * Leaf. Any thread.
 */
#pragma once

#include <stddef.h>

enum { LIMITS_TEXT_BYTES = 200 };

/*
 * The error's text, and the limits that may be behind it with their values. UV_EAGAIN is taken for a thread or a
 * process that could not be started, UV_ENOMEM for memory; of any other error there is just the text. Returns `text`.
 */
const char *limits_explain(int err, char *text, size_t size);
