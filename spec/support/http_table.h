/*
 * The tables of a page of documentation as cases: each of their rows has bytes, and what is made of them. In the bytes
 * \r, \n, \t, \0 and \xHH are those, and {a*9} is nine a.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_row {
	char *what, *answer;
	uint8_t *bytes;
	size_t n;
};

struct http_table {
	struct http_row *rows;
	unsigned count;
};

/*
 * Reads the rows "| what | `bytes` | answer |", of which the answer begins with a digit, or is `quoted`: of one kind
 * alone. Ends the process where a row has an escape that is not known.
 */
void http_table_read(struct http_table *table, const char *path, bool quoted);
void http_table_free(struct http_table *table);
