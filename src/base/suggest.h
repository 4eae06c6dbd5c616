/*
 * "Did you mean": the candidate nearest to a misspelt word. The same rules as
 * perilune.suggest in Lua.
 *
 * Leaf; any thread.
 */
#pragma once

#include <stddef.h>

enum { SUGGEST_WORD_MAX = 64 }; /* longer words are no misspelt ones */

/*
 * Damerau-Levenshtein distance (optimal string alignment), whatever the case: insertions,
 * deletions, substitutions and swaps of neighbours cost 1 each. Both are at most
 * SUGGEST_WORD_MAX bytes long.
 */
size_t suggest_distance(const char *a, const char *b);

/* The nearest of `n` candidates, the first one of equals; NULL when none is near. */
const char *suggest_nearest(const char *word, const char *const *candidates, size_t n);
