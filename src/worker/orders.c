#include "worker/orders.h"

#include <stddef.h>

int orders_open(struct orders *orders)
{
	*orders = (struct orders){ .last = NULL };
	return uv_mutex_init(&orders->lock);
}

void orders_close(struct orders *orders)
{
	uv_mutex_destroy(&orders->lock);
}

static struct mail *first_of(const struct orders *orders)
{
	return atomic_load_explicit(&orders->first, memory_order_relaxed);
}

static void set_first(struct orders *orders, struct mail *mail)
{
	atomic_store_explicit(&orders->first, mail, memory_order_relaxed);
}

void orders_push(struct orders *orders, struct mail *mail)
{
	mail->next = NULL;
	uv_mutex_lock(&orders->lock);
	if (first_of(orders))
		orders->last->next = mail;
	else
		set_first(orders, mail);
	orders->last = mail;
	uv_mutex_unlock(&orders->lock);
}

struct mail *orders_pop(struct orders *orders)
{
	if (!orders_wait(orders))
		return NULL;
	uv_mutex_lock(&orders->lock);
	struct mail *mail = first_of(orders);
	if (mail)
		set_first(orders, mail->next);
	uv_mutex_unlock(&orders->lock);
	return mail;
}

static void unlink_mail(struct orders *orders, struct mail *before, struct mail *mail)
{
	if (before)
		before->next = mail->next;
	else
		set_first(orders, mail->next);
	if (orders->last == mail)
		orders->last = before;
}

struct mail *orders_take_back(struct orders *orders, bool (*is_wanted)(void *data, struct mail *mail),
			      void *data)
{
	struct mail *before = NULL;
	uv_mutex_lock(&orders->lock);
	struct mail *mail = first_of(orders);
	for (; mail && !is_wanted(data, mail); mail = mail->next)
		before = mail;
	if (mail)
		unlink_mail(orders, before, mail);
	uv_mutex_unlock(&orders->lock);
	return mail;
}
