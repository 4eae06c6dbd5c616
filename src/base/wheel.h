/*
 * A hierarchical timer wheel (Varghese & Lauck, "Hashed and Hierarchical
 * Timing Wheels", 1987): arming, re-arming and removing are O(1), and a timer
 * costs its 24 bytes inside the struct that owns it.
 *
 * Time is an argument: the wheel never asks a clock. Due nodes leave the wheel
 * before any callback runs (wheel_advance moves them to a list), so whoever
 * handles them may arm and remove nodes at will, the due ones included.
 *
 * Threads: a wheel and its nodes belong to one thread. Neither may be moved:
 * armed nodes and list heads point at each other.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { WHEEL_LEVELS = 6, WHEEL_SLOTS = 64 }; /* 64^6 ms: two years; later deadlines are re-filed */

#define WHEEL_NEVER UINT64_MAX

/* Embedded in its owner. All zero: not armed. */
struct wheel_node {
	struct wheel_node *next, *prev;
	uint64_t expires_ms;
};

struct wheel {
	uint64_t now_ms;                                    /* as of the last advance */
	uint64_t occupied[WHEEL_LEVELS];                    /* a bit per slot that may hold nodes */
	struct wheel_node slots[WHEEL_LEVELS][WHEEL_SLOTS]; /* list heads */
};

void wheel_init(struct wheel *wheel, uint64_t now_ms);

/* Arms (or re-arms) node for expires_ms. A time already past counts as now and is due at the next
 * advance, to the same now_ms if need be. */
void wheel_arm(struct wheel *wheel, struct wheel_node *node, uint64_t expires_ms);

/* Takes node out of the wheel, or of a list of due nodes. Harmless when it is not armed. */
void wheel_disarm(struct wheel_node *node);

static inline bool wheel_armed(const struct wheel_node *node)
{
	return node->next != 0;
}

/*
 * Moves time to now_ms (never back) and every node due by then to the list *due, in order of expiry
 * to the millisecond and, within one, in the order they were armed. *due is a list head that this
 * call initialises; it must be emptied, by wheel_pop() or wheel_disarm(), before it goes out of scope.
 */
void wheel_advance(struct wheel *wheel, uint64_t now_ms, struct wheel_node *due);

/* For a list of due nodes that is kept: empty until wheel_advance() has filled it. */
static inline void wheel_list_init(struct wheel_node *due)
{
	due->next = due->prev = due;
}

static inline bool wheel_is_empty(const struct wheel_node *due)
{
	return due->next == due;
}

/* Puts a node that is not armed at the end of such a list; wheel_disarm() takes it out. */
void wheel_list_append(struct wheel_node *head, struct wheel_node *node);

/* Takes the first node from a due list, no longer armed; NULL when it is empty. */
struct wheel_node *wheel_pop(struct wheel_node *due);

/*
 * A time before or at which wheel_advance() must next be called: exact for near deadlines,
 * early (never late) for far ones: advancing from one such time to the next reaches a node after at
 * most a step for each level. WHEEL_NEVER when nothing is armed.
 */
uint64_t wheel_next_ms(const struct wheel *wheel);
