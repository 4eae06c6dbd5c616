/*
 * Dates as HTTP has them: "Sun, 06 Nov 1994 08:49:37 GMT". Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HTTP_DATE_BYTES = 29 };

/* Of a second since 1970, from the year 0 to 9999. Terminated. */
void http_date_print(char text[HTTP_DATE_BYTES + 1], int64_t second);

/* False: it is no such date. The two forms of before 1994 are not taken: nobody sends them any more. */
bool http_date_read(const char *text, size_t n, int64_t *second);
