/*
 * Lua 5.1's patterns, to the letter as LuaJIT 2.1 has them: a matcher of our own, for
 * theirs backtracks where nothing can interrupt it. This one counts its steps, stops
 * when they are used up, and looks now and then at a flag that a signal handler may set.
 *
 * spec/support/pattern_cases.lua compares it with LuaJIT's over random cases, down to the last error message.
 *
 * Recursion is as bounded as LuaJIT's: PATTERN_DEPTH_MAX frames of some 150 bytes.
 *
 * Leaf; any thread.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PATTERN_CAPTURES_MAX = 32, PATTERN_DEPTH_MAX = 200 };

/* How an attempt ends; the negative ones are errors. */
enum pattern_status {
	PATTERN_NONE = 0,
	PATTERN_FOUND = 1,
	PATTERN_STOPPED = -1,       /* the flag was set */
	PATTERN_EXHAUSTED = -2,     /* the budget is used up */
	PATTERN_TOO_DEEP = -3,      /* more quantifiers and captures in a row than may nest */
	PATTERN_BAD_ESCAPE = -4,    /* a % at the end */
	PATTERN_BAD_SET = -5,       /* a [ without its ] */
	PATTERN_BAD_CAPTURE = -6,   /* a ) without its ( */
	PATTERN_BAD_INDEX = -7,     /* %1 where no capture is complete */
	PATTERN_BAD_BALANCE = -8,   /* %b without its two bytes */
	PATTERN_BAD_FRONTIER = -9,  /* %f without its set */
	PATTERN_MANY_CAPTURES = -10 /* over PATTERN_CAPTURES_MAX */
};

/* What a search may still spend; several searches may share one. A step is about an item of the
 * pattern tried, or a byte of the subject run over. */
struct pattern_budget {
	int64_t steps; /* beyond those in `slice` */
	int64_t slice; /* to spend before the flag is looked at again */
	const volatile sig_atomic_t *stop;
};

/* len of a capture that is no text. */
enum { PATTERN_OPEN = -1, PATTERN_POSITION = -2 };

struct pattern_capture {
	const char *at; /* into the subject */
	ptrdiff_t len;  /* or PATTERN_OPEN: never closed; or PATTERN_POSITION */
};

struct pattern_match {
	const char *start, *end; /* into the subject */
	unsigned count;
	struct pattern_capture captures[PATTERN_CAPTURES_MAX];
};

/* `stop` must outlive the budget. */
void pattern_budget_init(struct pattern_budget *budget, int64_t steps, const volatile sig_atomic_t *stop);

/*
 * Matches at subject[at] and nowhere else. A pattern ends at its first NUL, as in LuaJIT; ^ is a
 * character like others, anchoring is the caller's. *match is valid only when something is found.
 */
int pattern_match(const char *subject, size_t len, size_t at, const char *pattern,
		  struct pattern_budget *budget, struct pattern_match *match);

/* The same for the first match that starts at subject[at] or later. */
int pattern_search(const char *subject, size_t len, size_t at, const char *pattern,
		   struct pattern_budget *budget, struct pattern_match *match);

/* Is there a character with a meaning? If not, a pattern is found as plain text is. */
bool pattern_is_special(const char *pattern, size_t len);

/* LuaJIT's message for an error, where it has one; for people in any case. */
const char *pattern_message(int status);
