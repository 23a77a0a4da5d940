// The query API in the JSON of the Connect protocol: POST of a request, a reply or an error. 64-bit numbers are strings in it.
import type {
  AggregateRequestJson, AggregateResponseJson, GetStatusRequestJson, GetStatusResponseJson, LossJson, QueryAnomaliesRequestJson,
  QueryAnomaliesResponseJson, QueryFlowsRequestJson, QueryFlowsResponseJson, QueryGpuRequestJson, QueryGpuResponseJson,
} from './gen/orb8/v1/orb8_pb'
import { apiURL } from './url'

interface Methods {
  QueryFlows: [QueryFlowsRequestJson, QueryFlowsResponseJson]
  QueryAnomalies: [QueryAnomaliesRequestJson, QueryAnomaliesResponseJson]
  QueryGpu: [QueryGpuRequestJson, QueryGpuResponseJson]
  Aggregate: [AggregateRequestJson, AggregateResponseJson]
  GetStatus: [GetStatusRequestJson, GetStatusResponseJson]
}

/** What every reply says of itself. */
export interface Told {
  lost?: LossJson
  truncated?: boolean
  matched?: string
  oldest?: string
  missingNodes?: string[]
}

export class ApiError extends Error {
  /** Code is that of Connect: invalid_argument, unimplemented, ..., or "unreachable". */
  constructor(readonly code: string, message: string) {
    super(message)
  }
}

const refused: Record<number, string> = {
  401: 'The collector does not know who asks (401): sign in again at the proxy in front of it, or reload this page.',
  403: 'You may not ask this collector (403).',
}

export async function call<M extends keyof Methods>(method: M, request: Methods[M][0], signal: AbortSignal): Promise<Methods[M][1]> {
  let response: Response
  try {
    response = await fetch(apiURL(method), {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(request),
      signal,
    })
  } catch (error) {
    if (signal.aborted) throw error
    throw new ApiError('unreachable', 'The collector does not answer. It may be restarting; this page goes on trying.')
  }
  if (response.ok) return JSON.parse(await response.text(), (_, value) => (typeof value === 'string' ? printable(value) : value)) as Methods[M][1]
  const explained = refused[response.status]
  if (explained) throw new ApiError('unauthenticated', explained)
  const body = (await response.json().catch(() => ({}))) as { code?: string; message?: string }
  throw new ApiError(body.code ?? `http_${response.status}`, body.message ?? `The collector answered ${response.status}.`)
}

// What turns the direction of writing, breaks lines or shows nothing at all: with it a name could look like another.
const unprintable = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}]/gu

/** Makes text fit to be shown: names come from whoever runs on a node or answers to one. */
const printable = (s: string) => s.replace(unprintable, '\uFFFD')

/** A 64-bit number; beyond 2^53 it is rounded, which no picture shows. */
export const num = (s: string | number | undefined) => Number(s ?? 0)

/** Seconds of a Duration: "1.5s". */
export const seconds = (s: string | undefined) => (s === undefined ? 0 : Number.parseFloat(s))
