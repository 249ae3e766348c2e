-- How far a running attempt says it is, while its lease holds.
UPDATE job_logs j SET progress = %(fraction)s, progress_note = %(note)s
 WHERE j.id = %(id)s AND j.lease = %(lease)s AND j.locked_by = %(worker)s
   AND j.status = 'processing'
RETURNING j.id
