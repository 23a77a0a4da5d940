import { useEffect, useRef, useState } from 'preact/hooks'
import { ApiError } from './api'

export interface Answer<T> {
  /** The newest answer to the newest question, or while that is under way to one that differs in time alone. */
  data?: T
  error?: ApiError
  loading: boolean
}

/**
 * Asks again whenever the key or the time changes. A question of another key forgets the answer to the one before; one of another time
 * keeps it until there is a newer, so that a live page does not flicker.
 */
export function useAnswer<T>(key: string, time: unknown, ask: (signal: AbortSignal) => Promise<T>): Answer<T> {
  const [answer, setAnswer] = useState<Answer<T> & { key: string }>({ key, loading: true })
  const latest = useRef(ask)
  latest.current = ask
  useEffect(() => {
    const abort = new AbortController()
    setAnswer((old) => (old.key === key ? { ...old, loading: true } : { key, loading: true }))
    latest.current(abort.signal).then(
      (data) => { if (!abort.signal.aborted) setAnswer({ key, data, loading: false }) },
      (error: unknown) => {
        if (abort.signal.aborted) return
        const told = error instanceof ApiError ? error : new ApiError('internal', String(error))
        setAnswer((old) => ({ ...old, error: told, loading: false }))
      },
    )
    return () => abort.abort()
  }, [key, time])
  return answer.key === key ? answer : { loading: true }
}
