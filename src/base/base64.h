/*
 * Base64 (RFC 4648), with the alphabet for names in URLs or without. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum base64_alphabet { BASE64_PLAIN, BASE64_URL };

/* Of the text of n bytes. */
size_t base64_text_bytes(size_t n, bool is_padded);

/* Returns what is behind the text. All but the last piece of what is encoded have a multiple of three bytes. */
char *base64_encode(char *to, const uint8_t *from, size_t n, enum base64_alphabet alphabet, bool is_padded);

/*
 * How many of the n bytes are no padding. The padding may be missing, as a whole; SIZE_MAX: it is not right, or no
 * bytes make such a text.
 */
size_t base64_text_end(const char *text, size_t n);

/* How many bytes so many characters without padding make. */
size_t base64_bytes(size_t text_bytes);

/* Decodes n characters without padding, at most; all but the last piece have a multiple of four. Returns how many were
 * decoded: those before one that is not of the alphabet. */
size_t base64_decode(uint8_t *to, const char *text, size_t n, enum base64_alphabet alphabet);

/* Has the last of n characters bits that belong to no byte, and that an encoder would have left zero? */
bool base64_has_stray_bits(const char *text, size_t n);
