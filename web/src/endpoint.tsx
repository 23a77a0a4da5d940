// Names of the ends of flows. All of them come from the network or from processes: they are shown as text and as nothing else.
import type { EndpointJson } from './gen/orb8/v1/orb8_pb'
import type { Changes } from './url'

/** The systemd unit that a cgroup is; empty where it holds whatever a login or the system started in it: the process says more. */
export function unitOf(cgroup: string): string {
  const unit = cgroup.slice(cgroup.lastIndexOf('/') + 1)
  return /\.(scope|slice)$/.test(unit) ? '' : unit
}

/** The name that tells most in few letters, as the CLI's tables have it. */
export function nameOf(e: EndpointJson): string {
  return e.pod || e.container || (e.containerId ?? '').slice(0, 12) || e.service || e.name || unitOf(e.cgroup ?? '') || e.process || e.node ||
    e.address || ''
}

export const withPort = (name: string, port?: number) => (port ? (name.includes(':') ? `[${name}]:${port}` : `${name}:${port}`) : name)

/** NAMESPACE/POD/CONTAINER or NAMESPACE/SERVICE, or else what the host knows. */
export function fullName(e: EndpointJson): string {
  const parts = [e.namespace, e.pod, e.container, e.pod ? '' : e.service].filter(Boolean)
  return parts.length > 0 ? parts.join('/') : e.cgroup || e.name || e.node || ''
}

/** The subject page's parameters for an end; null where it has no page. */
export function subjectOf(e: EndpointJson): Changes | null {
  if (e.pod) return { pod: e.namespace ? `${e.namespace}/${e.pod}` : e.pod }
  if (e.containerId) return { container: e.containerId.slice(0, 12) }
  if (e.container) return { container: e.container }
  if (e.cgroup) return { cgroup: e.cgroup }
  return null
}
