/*
 * Texts of others (a peer's, a script's, the name of a file) made fit to be shown: the one check of UTF-8, and the one
 * escaper, of logs, terminals, JSON, traces and statuses. perilune.printable has the same rules in Lua;
 * spec/support/text_cases.lua holds both to one table.
 *
 * Escaped is what is no character, and every character that a terminal does not show as itself: controls (C0, DEL, C1),
 * separators of lines, marks that reorder text or take no room. A text goes by its length: a zero byte does not end it.
 *
 * Leaf; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum text_form {
	/* For people: \n, \x1b, \u{202e}; a byte of no character is \xff. Backslashes stay: twice is as once. */
	TEXT_LINE,
	TEXT_LINES, /* the same, but line feeds and tabs stay */
	TEXT_JSON, /* what stands between the quotes of a JSON string; a byte of no character is the text \xff */
};

enum { TEXT_PIECE_BYTES = 16 };

/* The bytes of the character at s, and its code point; 0: there is none. As RFC 3629 has it. n is at least 1. */
size_t text_character(const void *s, size_t n, uint32_t *code);

bool text_is_utf8(const void *s, size_t n);

/* How many bytes of s are shown as they are, from its first on. */
size_t text_plain(enum text_form form, const void *s, size_t n);

/*
 * What shows the first character of s (or the first byte, where it is none): at most TEXT_PIECE_BYTES, which are not
 * terminated. Returns how many; *taken is how many of s they stand for.
 */
size_t text_piece(enum text_form form, const void *s, size_t n, char piece[TEXT_PIECE_BYTES], size_t *taken);

/* Always terminated; where not all fits into `size` bytes it ends in "…". Returns its length. `size` is at least 4. */
size_t text_escape(enum text_form form, char *to, size_t size, const void *s, size_t n);

/* Writes it to a stream. */
void text_put(FILE *to, enum text_form form, const void *s, size_t n);

/* printf() as TEXT_LINES. */
void text_printf(FILE *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
