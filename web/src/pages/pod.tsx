import type { ComponentChildren } from 'preact'
import { usePlace } from '../url'
import { Subject, subjectFrom } from './subject'
import { Subjects } from './subjects'

/** One pod, container, workload or cgroup, or the list of them. */
export function PodPage(): ComponentChildren {
  const { params } = usePlace()
  const subject = subjectFrom(params)
  return subject ? <Subject of={subject} /> : <Subjects />
}
