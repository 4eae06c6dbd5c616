/*
 * A letter: a message from one agent to another, or the reply to one, on its way. It is one allocation, and what it
 * says is plain data, which is of no VM.
 *
 * Threads: one has it at a time; it goes from one to the next by mail.
 */
#pragma once

#include "base/mailbox.h"
#include "names/names.h"

#include "vm/vm.h"

#include <lua.h>

enum { LETTER_BYTES_MAX = 1 << 20 }; /* of what it says */

enum letter_kind {
	LETTER_NIL,
	LETTER_BOOLEAN,
	LETTER_NUMBER,
	LETTER_STRING,
	LETTER_PACKED, /* bytes that lua/perilune/plain.lua has made */
};

/* What a letter says. */
struct letter_value {
	enum letter_kind kind;
	double number;    /* LETTER_NUMBER; LETTER_BOOLEAN: 0 or 1 */
	const char *data; /* LETTER_STRING, LETTER_PACKED */
	size_t len;
};

enum letter_about {
	LETTER_MESSAGE,
	LETTER_REPLY,
	/* Of a call that gets no reply, for: */
	LETTER_CANCELED,  /* the agent has ended, or its message() has failed */
	LETTER_OVERSIZE,  /* the reply is too large */
	LETTER_NO_ROOM,   /* too much is on its way to who has called */
	LETTER_NO_MEMORY, /* there was none for the reply */
};

struct letter {
	struct mail mail;  /* first: in a box, or in a list */
	struct name *to;   /* held; NULL of what is no message any more */
	struct name *from; /* held: the sender's, or NULL */
	uint64_t sender;   /* its channel; 0: the app's */
	uint64_t call;     /* of the sender's worker, which waits for the reply; 0: none does */
	double number;
	size_t reserved;    /* bytes: names_reserve() */
	uint32_t len, room; /* of `data` */
	uint16_t worker;    /* the sender's */
	uint8_t about;      /* enum letter_about */
	uint8_t kind;       /* enum letter_kind */
	bool is_last_word;  /* of an agent without a socket that has ended */
	char data[];
};

static inline struct letter *letter_of(struct mail *mail)
{
	return (struct letter *)(void *)mail;
}

/* What it takes. */
static inline size_t letter_bytes(size_t len)
{
	return sizeof(struct letter) + len;
}

/* To a name that is held, and is the letter's then. NULL: there is no memory, and the name is the caller's still. */
struct letter *letter_new(struct name *to, const struct letter_value *value);

/* It says this instead, in memory of its own where it has room for it. NULL: there is no memory; it is as it was. */
struct letter *letter_say(struct letter *letter, const struct letter_value *value);

/* It is no message any more: it lets go of the names. */
void letter_leave_names(struct letter *letter);

void letter_free(struct letter *letter);

/* Outside of calls: pushes what it says, of what is packed the bytes. False: there is no memory for it. */
bool letter_push(struct vm *vm, lua_State *lua, const struct letter *letter);

/* What is at idx, as a letter says it. False: it has to be packed. A string stays where it is. */
bool letter_read(lua_State *lua, int idx, struct letter_value *value);
