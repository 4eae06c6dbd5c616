#include "base/pattern.h"

#include <string.h>

/* Parts of one recursive function, which would otherwise be two or three frames a level. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Budgets are handed out in slices, so that the flag is looked at this often: some microseconds. */
enum {
	SLICE_STEPS = 4096,
	SET_SHORT_BYTES = 48,
	PIECE_BYTES = 1 << 20, /* that an item runs over between two looks at the budget */
};

/* ---- classes of characters: ASCII's, whatever the locale ---- */

enum {
	CNTRL = 1,
	SPACE = 2,
	PUNCT = 4,
	DIGIT = 8,
	HEXA = 16, /* a letter that is a digit to base 16 */
	UPPER = 32,
	LOWER = 64,
	ALPHA = UPPER | LOWER,
	ALNUM = ALPHA | DIGIT,
	HEX_UPPER = UPPER | HEXA,
	HEX_LOWER = LOWER | HEXA
};

#define TIMES_5(x) x, x, x, x, x
#define TIMES_10(x) TIMES_5(x), TIMES_5(x)
#define TIMES_20(x) TIMES_10(x), TIMES_10(x)

/* The bytes from 128 on are of no class. */
static const uint8_t CLASSES[256] = {
	TIMES_5(CNTRL),
	CNTRL,
	CNTRL,
	CNTRL,
	CNTRL,                  /* up to \b */
	TIMES_5(CNTRL | SPACE), /* \t \n \v \f \r */
	TIMES_10(CNTRL),
	TIMES_5(CNTRL),
	CNTRL,
	CNTRL,
	CNTRL, /* up to 31 */
	SPACE,
	TIMES_10(PUNCT),
	TIMES_5(PUNCT), /* up to / */
	TIMES_10(DIGIT),
	TIMES_5(PUNCT),
	PUNCT,
	PUNCT, /* up to @ */
	TIMES_5(HEX_UPPER),
	HEX_UPPER,
	TIMES_20(UPPER),
	TIMES_5(PUNCT), /* A to _ */
	PUNCT,
	TIMES_5(HEX_LOWER),
	HEX_LOWER,
	TIMES_20(LOWER), /* ` to z */
	PUNCT,
	PUNCT,
	PUNCT,
	PUNCT,
	CNTRL,
};

/* What a letter after % stands for; 0: itself. */
static const uint8_t LETTERS[26] = {
	['a' - 'a'] = ALPHA, ['c' - 'a'] = CNTRL,        ['d' - 'a'] = DIGIT, ['g' - 'a'] = ALNUM | PUNCT,
	['l' - 'a'] = LOWER, ['p' - 'a'] = PUNCT,        ['s' - 'a'] = SPACE, ['u' - 'a'] = UPPER,
	['w' - 'a'] = ALNUM, ['x' - 'a'] = DIGIT | HEXA,
};

static uint8_t byte_of(char c)
{
	return (uint8_t)c;
}

static bool is(char c, int classes)
{
	return CLASSES[byte_of(c)] & classes;
}

/* ---- items: what one byte of the subject is held against ---- */

enum item_kind { ITEM_ANY, ITEM_BYTE, ITEM_OTHER_BYTE, ITEM_CLASS, ITEM_OTHER_CLASS, ITEM_SET };

struct item {
	enum item_kind kind;
	uint8_t value;         /* a byte, or a mask of classes */
	const char *set, *end; /* between the brackets, ^ included */
};

/* What % and a character mean. */
static void read_escape(char c, struct item *item)
{
	item->kind = ITEM_BYTE;
	item->value = byte_of(c);
	if (!is(c, ALPHA))
		return;
	uint8_t classes = LETTERS[(byte_of(c) | 32) - 'a'];
	bool negated = is(c, UPPER);
	if (classes) {
		item->kind = negated ? ITEM_OTHER_CLASS : ITEM_CLASS;
		item->value = classes;
	} else if ((c | 32) == 'z') {
		item->kind = negated ? ITEM_OTHER_BYTE : ITEM_BYTE;
		item->value = 0;
	}
}

/* Whether a byte is what % and a character mean: read_escape() for a single use. */
static inline bool escape_holds(char escaped, uint8_t c)
{
	if (!is(escaped, ALPHA))
		return c == byte_of(escaped);
	bool negated = is(escaped, UPPER);
	uint8_t classes = LETTERS[(byte_of(escaped) | 32) - 'a'];
	if (classes)
		return is((char)c, classes) != negated;
	if ((escaped | 32) == 'z')
		return (c == 0) != negated;
	return c == byte_of(escaped);
}

static bool set_holds(const struct item *item, uint8_t c)
{
	const char *p = item->set;
	bool wanted = *p != '^';
	p += !wanted;
	while (p < item->end) {
		if (*p == '%') {
			if (escape_holds(p[1], c))
				return wanted;
			p += 2;
		} else if (p[1] == '-' && p + 2 < item->end) {
			if (byte_of(p[0]) <= c && c <= byte_of(p[2]))
				return wanted;
			p += 3;
		} else if (byte_of(*p++) == c) {
			return wanted;
		}
	}
	return !wanted;
}

static inline bool item_holds(const struct item *item, char byte)
{
	uint8_t c = byte_of(byte);
	switch (item->kind) {
	case ITEM_ANY:
		return true;
	case ITEM_BYTE:
		return c == item->value;
	case ITEM_OTHER_BYTE:
		return c != item->value;
	case ITEM_CLASS:
		return CLASSES[c] & item->value;
	case ITEM_OTHER_CLASS:
		return !(CLASSES[c] & item->value);
	case ITEM_SET:
		break;
	}
	return set_holds(item, c);
}

/* A bit for each byte. */
static void read_map(const struct item *item, uint64_t map[4])
{
	const char *p = item->set;
	bool negated = *p == '^';
	p += negated;
	memset(map, 0, 4 * sizeof *map);
	while (p < item->end) {
		bool is_range = *p != '%' && p[1] == '-' && p + 2 < item->end;
		unsigned from = byte_of(*p), to = byte_of(is_range ? p[2] : *p);
		if (*p == '%')
			from = 0, to = 255;
		for (unsigned c = from; c <= to; c++)
			if (*p != '%' || escape_holds(p[1], (uint8_t)c))
				map[c >> 6] |= UINT64_C(1) << (c & 63);
		p += is_range ? 3 : *p == '%' ? 2 : 1;
	}
	for (int i = 0; negated && i < 4; i++)
		map[i] = ~map[i];
}

/* Where the bytes end that a set holds for, or, if not `wanted`, does not. To read a set byte by byte is
 * best for a word; a map is for more, and for sets that are long themselves. */
static const char *set_run(const struct item *item, const char *s, const char *end, bool wanted)
{
	uint64_t map[4];
	const char *near = end - s < SET_SHORT_BYTES ? end : s + SET_SHORT_BYTES;
	if (item->end - item->set > SET_SHORT_BYTES)
		near = s;
	while (s < near && set_holds(item, byte_of(*s)) == wanted)
		s++;
	if (s < near || s == end)
		return s;
	read_map(item, map);
	while (s < end && (map[byte_of(*s) >> 6] >> (*s & 63) & 1) == wanted)
		s++;
	return s;
}

/* Steps that reading a set once, or making a map of it, are worth. */
static inline int64_t item_cost(const struct item *item)
{
	return item->kind == ITEM_SET ? 1 + (item->end - item->set) / 8 : 1;
}

static inline int64_t run_cost(const struct item *item, int64_t bytes)
{
	bool is_long = item->kind == ITEM_SET && item->end - item->set > SET_SHORT_BYTES;
	return is_long ? bytes + 16 * (item->end - item->set) : bytes;
}

/* Where the bytes that an item holds for end. */
static const char *item_run(const struct item *item, const char *s, const char *end)
{
	switch (item->kind) {
	case ITEM_ANY:
		return end;
	case ITEM_CLASS:
		while (s < end && (CLASSES[byte_of(*s)] & item->value))
			s++;
		return s;
	case ITEM_OTHER_CLASS:
		while (s < end && !(CLASSES[byte_of(*s)] & item->value))
			s++;
		return s;
	case ITEM_SET:
		return set_run(item, s, end, true);
	default:
		while (s < end && item_holds(item, *s))
			s++;
		return s;
	}
}

/* The first byte that an item holds for; end if there is none. */
static const char *item_seek(const struct item *item, const char *s, const char *end)
{
	switch (item->kind) {
	case ITEM_BYTE: {
		const char *found = memchr(s, item->value, (size_t)(end - s));
		return found ? found : end;
	}
	case ITEM_CLASS:
		while (s < end && !(CLASSES[byte_of(*s)] & item->value))
			s++;
		return s;
	case ITEM_SET:
		return set_run(item, s, end, false);
	default:
		while (s < end && !item_holds(item, *s))
			s++;
		return s;
	}
}

/* ---- one attempt ---- */

struct matcher {
	const char *subject, *end;
	struct pattern_match *match;
	int64_t fuel; /* the budget's slice, while we run */
	struct pattern_budget *budget;
	int depth;
	int status; /* an error, or 0 */
};

static const char *match(struct matcher *m, const char *s, const char *p);

/* NULL, for what it is that callers return. */
static const char *pattern_fail(struct matcher *m, int status)
{
	m->status = status;
	return NULL;
}

/* The slice is overdrawn. Not inlined, as it is rare. */
__attribute__((noinline)) static bool refill(struct matcher *m)
{
	struct pattern_budget *budget = m->budget;
	budget->steps += m->fuel;
	m->fuel = 0;
	if (*budget->stop || budget->steps < 0)
		return pattern_fail(m, *budget->stop ? PATTERN_STOPPED : PATTERN_EXHAUSTED);
	m->fuel = budget->steps < SLICE_STEPS ? budget->steps : SLICE_STEPS;
	budget->steps -= m->fuel;
	return true;
}

/* False: no more. */
static inline bool spend(struct matcher *m, int64_t steps)
{
	m->fuel -= steps;
	return m->fuel >= 0 || refill(m);
}

/* Reads the [set] whose bracket is before p; returns what follows it, or NULL with an error. */
static const char *read_set(struct matcher *m, const char *p, struct item *item)
{
	item->kind = ITEM_SET;
	item->set = p;
	p += *p == '^';
	/* The first character is part of the set even if it is a bracket. */
	do {
		if (!*p)
			return pattern_fail(m, PATTERN_BAD_SET);
		if (*p++ == '%' && *p)
			p++;
	} while (*p != ']');
	item->end = p;
	return spend(m, item_cost(item) - 1) ? p + 1 : NULL;
}

/* Reads an item; returns what follows it, or NULL with an error. */
ALWAYS_INLINE const char *read_item(struct matcher *m, const char *p, struct item *item)
{
	switch (*p) {
	case '.':
		item->kind = ITEM_ANY;
		return p + 1;
	case '[':
		return read_set(m, p + 1, item);
	case '%':
		if (!p[1])
			return pattern_fail(m, PATTERN_BAD_ESCAPE);
		read_escape(p[1], item);
		return p + 2;
	default:
		item->kind = ITEM_BYTE;
		item->value = byte_of(*p);
		return p + 1;
	}
}

/* The capture that a ) closes, or -1. */
static int innermost_open(const struct matcher *m)
{
	int i = (int)m->match->count - 1;
	while (i >= 0 && m->match->captures[i].len != PATTERN_OPEN)
		i--;
	return i;
}

/*
 * The byte that whatever matches p must begin with, or -1: unknown. It saves attempts that are bound
 * to fail. To remain LuaJIT's equal there must be no error either that such an attempt would raise.
 */
static int first_byte(const struct matcher *m, const char *p)
{
	if (m->depth + 2 > PATTERN_DEPTH_MAX)
		return -1;
	if (*p == ')' && innermost_open(m) >= 0)
		p++;
	switch (*p) {
	case '\0':
	case '(':
	case ')':
	case '.':
	case '[':
	case '$':
		return -1;
	case '%':
		p++;
		if (!*p || is(*p, ALNUM))
			return -1;
		break;
	}
	return p[1] == '*' || p[1] == '?' || p[1] == '-' ? -1 : byte_of(*p);
}

static const char *end_of_piece(const struct matcher *m, const char *s)
{
	return m->end - s > PIECE_BYTES ? s + PIECE_BYTES : m->end;
}

/* How many bytes from s on an item holds for. False: no more. */
static inline bool count_run(struct matcher *m, const struct item *item, const char *s, size_t *n)
{
	const char *from, *end;
	*n = 0;
	do {
		from = s;
		end = end_of_piece(m, s);
		s = item_run(item, s, end);
		*n += (size_t)(s - from);
		if (!spend(m, run_cost(item, s - from)))
			return false;
	} while (s == end && s != m->end);
	return true;
}

/* The last place of s … s + n that is such a byte; NULL: there is none. */
static const char *last_place(const struct matcher *m, const char *s, size_t n, int byte)
{
	return memrchr(s, byte, s + n == m->end ? n : n + 1); /* at the end of the subject is no byte */
}

/* An item with * (or + after its first byte): the longest run first, and then ever shorter ones. */
static const char *match_longest(struct matcher *m, const struct item *item, const char *s, const char *rest)
{
	size_t n;
	if (!count_run(m, item, s, &n))
		return NULL;
	if (m->depth < PATTERN_DEPTH_MAX) {
		if (!*rest)
			return s + n;
		if (*rest == '$' && !rest[1])
			return s + n == m->end ? m->end : NULL;
	}
	int next = first_byte(m, rest);
	for (size_t i = n + 1; i-- > 0;) {
		if (next >= 0) {
			const char *place = last_place(m, s, i, next);
			if (!place)
				return NULL;
			i = (size_t)(place - s);
		}
		const char *end = match(m, s + i, rest);
		if (end || m->status)
			return end;
	}
	return NULL;
}

/* An item with -: the shortest run first, and then ever longer ones. */
static const char *match_shortest(struct matcher *m, const struct item *item, const char *s, const char *rest)
{
	int next = first_byte(m, rest);
	int64_t cost = item_cost(item);
	for (;; s++) {
		if (next >= 0 && item->kind == ITEM_ANY) {
			const char *hit = memchr(s, next, (size_t)(m->end - s));
			/* memchr() is that much faster than steps are. */
			if (!spend(m, ((hit ? hit : m->end) - s) / 16) || !hit)
				return NULL;
			s = hit;
		}
		if (next < 0 || (s < m->end && byte_of(*s) == next)) {
			const char *end = match(m, s, rest);
			if (end || m->status)
				return end;
		}
		if (s == m->end || !item_holds(item, *s) || !spend(m, cost))
			return NULL;
	}
}

static const char *open_capture(struct matcher *m, const char *s, const char *rest, ptrdiff_t what)
{
	struct pattern_match *match_ = m->match;
	if (match_->count == PATTERN_CAPTURES_MAX)
		return pattern_fail(m, PATTERN_MANY_CAPTURES);
	match_->captures[match_->count++] = (struct pattern_capture){ s, what };
	const char *end = match(m, s, rest);
	if (!end)
		match_->count--;
	return end;
}

static const char *close_capture(struct matcher *m, const char *s, const char *rest)
{
	int i = innermost_open(m);
	if (i < 0)
		return pattern_fail(m, PATTERN_BAD_CAPTURE);
	struct pattern_capture *capture = &m->match->captures[i];
	capture->len = s - capture->at;
	const char *end = match(m, s, rest);
	if (!end)
		capture->len = PATTERN_OPEN;
	return end;
}

/* %bxy, with p at x: what follows in the subject, or NULL. */
static const char *match_balance(struct matcher *m, const char *s, const char *p)
{
	if (!p[0] || !p[1])
		return pattern_fail(m, PATTERN_BAD_BALANCE);
	const char *from = s;
	size_t open = 0;
	if (s == m->end || *s != p[0])
		return NULL;
	for (open = 1, s++; s < m->end; s++) {
		if (*s == p[1]) {
			if (!--open)
				break;
		} else if (*s == p[0]) {
			open++;
		}
	}
	return spend(m, s - from) && s < m->end ? s + 1 : NULL;
}

/* %f[set], with p at the bracket: what follows in the pattern, or NULL. */
static const char *match_frontier(struct matcher *m, const char *s, const char *p)
{
	struct item item;
	if (*p != '[')
		return pattern_fail(m, PATTERN_BAD_FRONTIER);
	const char *rest = read_set(m, p + 1, &item);
	if (!rest)
		return NULL;
	uint8_t before = s == m->subject ? 0 : byte_of(s[-1]);
	uint8_t after = s == m->end ? 0 : byte_of(*s);
	return !set_holds(&item, before) && set_holds(&item, after) ? rest : NULL;
}

/* %1 to %9: what follows in the subject, or NULL. */
static const char *match_reference(struct matcher *m, const char *s, char digit)
{
	int i = digit - '1';
	if (i < 0 || i >= (int)m->match->count || m->match->captures[i].len == PATTERN_OPEN)
		return pattern_fail(m, PATTERN_BAD_INDEX);
	const struct pattern_capture *capture = &m->match->captures[i];
	if (capture->len == PATTERN_POSITION || m->end - s < capture->len || !spend(m, capture->len))
		return NULL;
	return memcmp(capture->at, s, (size_t)capture->len) ? NULL : s + capture->len;
}

/*
 * An item that is not `single`: moves *s and *p on and returns true, or returns false with *s what
 * the attempt comes to.
 */
ALWAYS_INLINE bool match_item(struct matcher *m, const char **s, const char **p)
{
	struct item item;
	const char *at = *s, *rest = read_item(m, *p, &item);
	bool holds = rest && at < m->end && item_holds(&item, *at);
	*s = NULL;
	if (!rest)
		return false;
	*p = rest + 1;
	switch (*rest) {
	case '?':
		if (holds)
			*s = match(m, at + 1, rest + 1);
		if (*s || m->status)
			return false;
		*s = at;
		return true;
	case '*':
		*s = match_longest(m, &item, at, rest + 1);
		return false;
	case '+':
		*s = holds ? match_longest(m, &item, at + 1, rest + 1) : NULL;
		return false;
	case '-':
		*s = match_shortest(m, &item, at, rest + 1);
		return false;
	default:
		*p = rest;
		*s = holds ? at + 1 : NULL;
		return holds;
	}
}

/* What begins with % and is no item: moves *s and *p on, or *s becomes NULL. */
ALWAYS_INLINE bool match_escape(struct matcher *m, const char **s, const char **p)
{
	const char *rest;
	switch ((*p)[1]) {
	case 'b':
		*s = match_balance(m, *s, *p + 2);
		*p += 4;
		return true;
	case 'f':
		rest = match_frontier(m, *s, *p + 2);
		*s = rest ? *s : NULL;
		*p = rest;
		return true;
	default:
		if (!is((*p)[1], DIGIT))
			return false;
		*s = match_reference(m, *s, (*p)[1]);
		*p += 2;
		return true;
	}
}

/* Where a match of p at s ends, or NULL: none, or an error. */
ALWAYS_INLINE const char *match_all(struct matcher *m, const char *s, const char *p)
{
	while (spend(m, 1)) {
		switch (*p) {
		case '\0':
			return s;
		case '(':
			return p[1] == ')' ? open_capture(m, s, p + 2, PATTERN_POSITION)
					   : open_capture(m, s, p + 1, PATTERN_OPEN);
		case ')':
			return close_capture(m, s, p + 1);
		case '$':
			if (!p[1])
				return s == m->end ? s : NULL;
			break;
		case '%':
			if (!match_escape(m, &s, &p))
				break;
			if (!s)
				return NULL;
			continue;
		}
		if (!match_item(m, &s, &p))
			return s;
	}
	return NULL;
}

static const char *match(struct matcher *m, const char *s, const char *p)
{
	if (m->depth == PATTERN_DEPTH_MAX)
		return pattern_fail(m, PATTERN_TOO_DEEP);
	m->depth++;
	s = match_all(m, s, p);
	m->depth--;
	return s;
}

/* ---- the interface ---- */

static void pattern_begin(struct matcher *m, const char *subject, size_t len, struct pattern_budget *budget,
			  struct pattern_match *match)
{
	m->subject = subject;
	m->end = subject + len;
	m->match = match;
	m->budget = budget;
	m->fuel = budget->slice;
	m->depth = 0;
	m->status = PATTERN_NONE;
}

static bool attempt(struct matcher *m, const char *s, const char *pattern)
{
	m->match->count = 0;
	const char *end = match(m, s, pattern);
	m->match->start = s;
	m->match->end = end;
	return end;
}

/* Ends a search, with what it came to. */
static int pattern_finish(struct matcher *m, bool found)
{
	m->budget->slice = m->fuel;
	return found ? PATTERN_FOUND : m->status;
}

/*
 * The item that any match must begin with, whatever captures are opened before it. False: there is
 * none, or an error, which the first attempt will meet again.
 */
static bool read_first(struct matcher *m, const char *p, struct item *item)
{
	for (int i = 0; *p == '(' && p[1] != ')' && i < PATTERN_CAPTURES_MAX; i++)
		p++;
	if (!*p || *p == '(' || *p == ')' || *p == '$' || *p == '.')
		return false;
	if (*p == '%' && (p[1] == 'b' || p[1] == 'f' || is(p[1], DIGIT)))
		return false;
	p = read_item(m, p, item);
	m->status = PATTERN_NONE;
	return p && *p != '*' && *p != '?' && *p != '-';
}

void pattern_budget_init(struct pattern_budget *budget, int64_t steps, const volatile sig_atomic_t *stop)
{
	budget->slice = steps < SLICE_STEPS ? steps : SLICE_STEPS;
	budget->steps = steps - budget->slice;
	budget->stop = stop;
}

int pattern_match(const char *subject, size_t len, size_t at, const char *pattern,
		  struct pattern_budget *budget, struct pattern_match *match)
{
	struct matcher m;
	pattern_begin(&m, subject, len, budget, match);
	return pattern_finish(&m, attempt(&m, subject + at, pattern));
}

/* The first place from s on that an item holds for; the subject's end; NULL: no more. */
static const char *seek(struct matcher *m, const struct item *item, const char *s)
{
	const char *from, *end;
	do {
		from = s;
		end = end_of_piece(m, s);
		s = item_seek(item, s, end);
		if (!spend(m, run_cost(item, s - from)))
			return NULL;
	} while (s == end && s != m->end);
	return s;
}

int pattern_search(const char *subject, size_t len, size_t at, const char *pattern,
		   struct pattern_budget *budget, struct pattern_match *match)
{
	struct matcher m;
	struct item first;
	pattern_begin(&m, subject, len, budget, match);
	bool has_first = read_first(&m, pattern, &first);
	for (const char *s = subject + at;; s++) {
		if (has_first) {
			s = seek(&m, &first, s);
			if (!s || s == m.end)
				return pattern_finish(&m, false);
		}
		if (attempt(&m, s, pattern))
			return pattern_finish(&m, true);
		if (m.status || s == m.end)
			return pattern_finish(&m, false);
	}
}

bool pattern_is_special(const char *pattern, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (is(pattern[i], PUNCT) && strchr("^$*+?.([%-", pattern[i]))
			return true;
	return false;
}

const char *pattern_message(int status)
{
	switch (status) {
	case PATTERN_STOPPED:
		return "interrupted";
	case PATTERN_EXHAUSTED:
	case PATTERN_TOO_DEEP:
		return "pattern too complex";
	case PATTERN_BAD_ESCAPE:
		return "malformed pattern (ends with '%')";
	case PATTERN_BAD_SET:
		return "malformed pattern (missing ']')";
	case PATTERN_BAD_CAPTURE:
		return "invalid pattern capture";
	case PATTERN_BAD_INDEX:
		return "invalid capture index";
	case PATTERN_BAD_BALANCE:
		return "unbalanced pattern";
	case PATTERN_BAD_FRONTIER:
		return "missing '[' after '%f' in pattern";
	case PATTERN_MANY_CAPTURES:
		return "too many captures";
	default:
		return "no error";
	}
}
