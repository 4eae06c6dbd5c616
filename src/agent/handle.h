/*
 * What a conn object holds: its connection's id, sealed.
 *
 * The object is a table, and whatever in C writes into tables does not ask for its __newindex: so the id is mixed with
 * the table's address. A number that was written into it, or copied from another conn, is read as an id that is far too
 * large, or, one in 65,536 times, as one that no connection has had.
 *
 * It is a number at index 0: there it takes no more memory than a list of one item does, and no function for lists
 * comes there.
 */
#pragma once

#include <stdint.h>
#include <string.h>

enum { HANDLE_AT = 0, HANDLE_ID_BITS = 46, HANDLE_BITS = 62 };

#define HANDLE_ID_MAX \
	((UINT64_C(1) << HANDLE_ID_BITS) - 1) /* a thousand years of 2,000 connections a second */

/* With two bits less than a double has it is no NaN, whatever they are. */
static inline uint64_t handle_mark(const void *table)
{
	return (uint64_t)(uintptr_t)table * UINT64_C(0x9E3779B97F4A7C15) >> (64 - HANDLE_BITS);
}

static inline double handle_seal(const void *table, uint64_t id)
{
	uint64_t bits = handle_mark(table) ^ id;
	double sealed;
	memcpy(&sealed, &bits, sizeof sealed);
	return sealed;
}

static inline uint64_t handle_open_any(const void *table, double sealed)
{
	uint64_t bits;
	memcpy(&bits, &sealed, sizeof bits);
	return bits ^ handle_mark(table);
}

/* The id; 0: it is none that was sealed for this table. */
static inline uint64_t handle_open(const void *table, double sealed)
{
	uint64_t id = handle_open_any(table, sealed);
	return id <= HANDLE_ID_MAX ? id : 0;
}

/* Tasks have numbers of their own, and are sealed with this: no task is taken for the conn of the same number. */
#define HANDLE_OF_TASK (UINT64_C(1) << HANDLE_ID_BITS)

static inline uint64_t handle_open_task(const void *table, double sealed)
{
	uint64_t id = handle_open_any(table, sealed) ^ HANDLE_OF_TASK;
	return id <= HANDLE_ID_MAX ? id : 0;
}
