// The address bar holds all that a view is made of, so that a link shows the same to somebody else.
import { useEffect, useState } from 'preact/hooks'

// Every page is one level below the page's root, wherever that is.
const base = location.pathname.replace(/[^/]*$/, '')

export const apiURL = (method: string) => `${base}orb8.v1.OrbitService/${method}`

export interface Place {
  page: string
  params: URLSearchParams
}

function here(): Place {
  return { page: location.pathname.slice(base.length), params: new URLSearchParams(location.search) }
}

const changed = new EventTarget()
addEventListener('popstate', () => changed.dispatchEvent(new Event('place')))

export function usePlace(): Place {
  const [place, setPlace] = useState(here)
  useEffect(() => {
    const update = () => setPlace(here())
    changed.addEventListener('place', update)
    return () => changed.removeEventListener('place', update)
  }, [])
  return place
}

/** Goes to a page. Replacing leaves no step for the back button: for what is adjusted rather than visited. */
export function go(url: string, replace = false) {
  if (replace) history.replaceState(null, '', url)
  else history.pushState(null, '', url)
  changed.dispatchEvent(new Event('place'))
}

/** What a record has for a key that came from outside: "constructor" is none of its own. */
export const own = <T,>(of: Record<string, T>, key: string): T | undefined => (Object.hasOwn(of, key) ? of[key] : undefined)

export type Changes = Record<string, string | string[] | null>

/** The URL of a page with the time range of this one, and these parameters. */
export function linkTo(page: string, params: Changes = {}): string {
  const kept = new URLSearchParams()
  const now = here().params
  for (const key of ['t', 'since', 'until', 'live']) {
    const value = now.get(key)
    if (value !== null) kept.set(key, value)
  }
  return url(page, kept, params)
}

/** The URL of this page with other parameters; null removes one. */
export function change(params: Changes): string {
  const { page, params: now } = here()
  return url(page, now, params)
}

function url(page: string, params: URLSearchParams, changes: Changes): string {
  for (const [key, value] of Object.entries(changes)) {
    params.delete(key)
    for (const one of value === null ? [] : [value].flat()) params.append(key, one)
  }
  // Nothing in a query needs these to be escaped, and people read the address bar.
  const query = params.toString().replaceAll('%2F', '/').replaceAll('%3A', ':').replaceAll('%2C', ',').replaceAll('%2A', '*')
  return base + page + (query ? `?${query}` : '')
}

/** Lets the browser open tabs and windows, and everything else happen without loading the page anew. */
export function follow(event: MouseEvent) {
  const link = event.currentTarget as Element
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return
  event.preventDefault()
  go(link.getAttribute('href') ?? '')
}
