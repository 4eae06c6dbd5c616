/*
 * A node waits in the level of the highest 6-bit digit in which its deadline
 * differs from now, in the slot that digit names. Three things follow:
 *
 * - all of a level's nodes are due before any of the next level's, so the
 *   first occupied slot of the lowest occupied level holds the earliest one;
 * - a slot of level 0 is one millisecond, and everything in it is due then;
 * - when now reaches the start of a slot further up, its nodes agree with now
 *   in that digit and are filed again, lower.
 *
 * Moving now to any time before the next slot's start leaves every node where
 * it belongs, which is why idle time costs nothing, however long.
 */
#include "base/wheel.h"

#include <stddef.h>

enum { DIGIT_BITS = 6, TOP = WHEEL_LEVELS - 1 };

_Static_assert(WHEEL_SLOTS == 1 << DIGIT_BITS, "a slot per digit value");

/* A slot and the time at which it is due, WHEEL_NEVER when there is none. */
struct place {
	unsigned level, slot;
	uint64_t starts_ms;
};

/* ---- lists ---- */

void wheel_list_append(struct wheel_node *head, struct wheel_node *node)
{
	node->next = head;
	node->prev = head->prev;
	head->prev->next = node;
	head->prev = node;
}

/* Moves all of from's nodes behind to's. */
static void list_splice(struct wheel_node *to, struct wheel_node *from)
{
	if (wheel_is_empty(from))
		return;
	from->next->prev = to->prev;
	from->prev->next = to;
	to->prev->next = from->next;
	to->prev = from->prev;
	wheel_list_init(from);
}

/* ---- places ---- */

/* ms in units of a level's slots; its lowest digit is the slot. */
static uint64_t units(uint64_t ms, unsigned level)
{
	return ms >> (level * DIGIT_BITS);
}

static unsigned digit(uint64_t ms, unsigned level)
{
	return (unsigned)(units(ms, level) % WHEEL_SLOTS);
}

static unsigned level_of(uint64_t now_ms, uint64_t expires_ms)
{
	uint64_t differing = now_ms ^ expires_ms;
	if (!differing)
		return 0;
	unsigned level = (63U - (unsigned)__builtin_clzll(differing)) / DIGIT_BITS;
	return level < TOP ? level : TOP;
}

static void file(struct wheel *wheel, struct wheel_node *node)
{
	unsigned level = level_of(wheel->now_ms, node->expires_ms);
	unsigned slot = digit(node->expires_ms, level);
	/* The top level alone goes round: its furthest slot, the one behind now's, also keeps what
	 * lies beyond the wheel, to be filed again when its turn comes. */
	if (units(node->expires_ms, level) - units(wheel->now_ms, level) >= WHEEL_SLOTS)
		slot = (digit(wheel->now_ms, level) + WHEEL_SLOTS - 1) % WHEEL_SLOTS;
	wheel_list_append(&wheel->slots[level][slot], node);
	wheel->occupied[level] |= UINT64_C(1) << slot;
}

static uint64_t rotate_right(uint64_t bits, unsigned by)
{
	return bits >> by | bits << ((64 - by) % 64);
}

/* The first slot that really holds nodes: the bits of those emptied by wheel_disarm() still stand. */
static struct place first_place(const struct wheel *wheel)
{
	for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
		unsigned here = digit(wheel->now_ms, level);
		uint64_t ahead = rotate_right(wheel->occupied[level], here);
		for (; ahead; ahead &= ahead - 1) {
			unsigned distance = (unsigned)__builtin_ctzll(ahead);
			unsigned slot = (here + distance) % WHEEL_SLOTS;
			if (wheel_is_empty(&wheel->slots[level][slot]))
				continue;
			uint64_t unit = units(wheel->now_ms, level) + distance;
			return (struct place){ level, slot, unit << (level * DIGIT_BITS) };
		}
	}
	return (struct place){ WHEEL_LEVELS, 0, WHEEL_NEVER };
}

/* Clears the bits that the search for first passed over, so that no search meets them twice. */
static void forget_stale(struct wheel *wheel, const struct place *first)
{
	for (unsigned level = 0; level < first->level; level++)
		wheel->occupied[level] = 0;
	if (first->level == WHEEL_LEVELS)
		return;
	unsigned here = digit(wheel->now_ms, first->level);
	unsigned passed = (first->slot - here) % WHEEL_SLOTS;
	uint64_t mask = (UINT64_C(1) << passed) - 1;
	wheel->occupied[first->level] &= ~rotate_right(mask, (WHEEL_SLOTS - here) % WHEEL_SLOTS);
}

/* ---- the wheel ---- */

void wheel_init(struct wheel *wheel, uint64_t now_ms)
{
	wheel->now_ms = now_ms;
	for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
		wheel->occupied[level] = 0;
		for (unsigned slot = 0; slot < WHEEL_SLOTS; slot++)
			wheel_list_init(&wheel->slots[level][slot]);
	}
}

void wheel_arm(struct wheel *wheel, struct wheel_node *node, uint64_t expires_ms)
{
	wheel_disarm(node);
	node->expires_ms = expires_ms > wheel->now_ms ? expires_ms : wheel->now_ms;
	file(wheel, node);
}

void wheel_disarm(struct wheel_node *node)
{
	if (!wheel_armed(node))
		return;
	node->prev->next = node->next;
	node->next->prev = node->prev;
	node->next = node->prev = NULL;
}

/* Empties the slot whose time has come: into due, or into the levels below. */
static void open_slot(struct wheel *wheel, const struct place *place, struct wheel_node *due)
{
	struct wheel_node nodes;
	wheel_list_init(&nodes);
	list_splice(&nodes, &wheel->slots[place->level][place->slot]);
	wheel->occupied[place->level] &= ~(UINT64_C(1) << place->slot);
	wheel->now_ms = place->starts_ms;
	if (place->level == 0) {
		list_splice(due, &nodes);
		return;
	}
	for (struct wheel_node *node; (node = wheel_pop(&nodes));)
		file(wheel, node);
}

void wheel_advance(struct wheel *wheel, uint64_t now_ms, struct wheel_node *due)
{
	wheel_list_init(due);
	if (now_ms < wheel->now_ms)
		now_ms = wheel->now_ms;
	for (;;) {
		struct place first = first_place(wheel);
		forget_stale(wheel, &first);
		if (first.level == WHEEL_LEVELS || first.starts_ms > now_ms)
			break;
		open_slot(wheel, &first, due);
	}
	wheel->now_ms = now_ms;
}

struct wheel_node *wheel_pop(struct wheel_node *due)
{
	if (wheel_is_empty(due))
		return NULL;
	struct wheel_node *node = due->next;
	wheel_disarm(node);
	return node;
}

uint64_t wheel_next_ms(const struct wheel *wheel)
{
	return first_place(wheel).starts_ms;
}
