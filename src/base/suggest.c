#include "base/suggest.h"

#include <assert.h>
#include <ctype.h>
#include <string.h>

static int lower(char c)
{
	return tolower((unsigned char)c);
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

size_t suggest_distance(const char *a, const char *b)
{
	size_t a_len = strlen(a), b_len = strlen(b);
	assert(a_len <= SUGGEST_WORD_MAX && b_len <= SUGGEST_WORD_MAX);
	/* Rows i, i - 1 and i - 2 of the table, taking turns. */
	size_t rows[3][SUGGEST_WORD_MAX + 1];
	for (size_t j = 0; j <= b_len; j++)
		rows[0][j] = j;
	for (size_t i = 1; i <= a_len; i++) {
		size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
		row[0] = i;
		for (size_t j = 1; j <= b_len; j++) {
			size_t differ = lower(a[i - 1]) != lower(b[j - 1]);
			row[j] = least(least(above[j] + 1, row[j - 1] + 1), above[j - 1] + differ);
			if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
			    lower(a[i - 2]) == lower(b[j - 1]))
				row[j] = least(row[j], before[j - 2] + 1);
		}
	}
	return rows[a_len % 3][b_len];
}

/* About one slip in three letters; a single letter is like any other, so it suggests nothing. */
static size_t cutoff(size_t word_len, size_t longer)
{
	if (word_len < 2)
		return 0;
	return longer < 6 ? 1 : least(3, longer / 3);
}

const char *suggest_nearest(const char *word, const char *const *candidates, size_t n)
{
	const char *nearest = NULL;
	size_t word_len = strlen(word), smallest = (size_t)-1;
	if (word_len > SUGGEST_WORD_MAX)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(candidates[i]);
		size_t limit = cutoff(word_len, word_len > len ? word_len : len);
		if (len > SUGGEST_WORD_MAX || (len > word_len ? len - word_len : word_len - len) > limit)
			continue;
		size_t distance = suggest_distance(word, candidates[i]);
		if (distance <= limit && distance < smallest) {
			nearest = candidates[i];
			smallest = distance;
		}
	}
	return nearest;
}
