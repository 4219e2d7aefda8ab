#!/usr/bin/env bash
# What main.tf makes, without its alarms, by gcloud alone: gcloud.sh DIST NAME
#
# DIST is the folder of 'syncagent package gcp'; NAME is the function's, the topic's and the secret's, such as syncagent-photos.
# BUCKET, REGION, SYNCAGENT_CATALOG and GOOGLE_CLOUD_PROJECT are the README's. The bucket is one of this project.
# Running it again updates the function and makes what lacks.
set -euo pipefail
dist=${1:?DIST is missing} name=${2:?NAME is missing}
: "${BUCKET:?}" "${REGION:?}" "${SYNCAGENT_CATALOG:?}"
project=${GOOGLE_CLOUD_PROJECT:?}
export CLOUDSDK_CORE_PROJECT=$project

function=$name@$project.iam.gserviceaccount.com
caller=$name-call@$project.iam.gserviceaccount.com
builder=$name-make@$project.iam.gserviceaccount.com
storage=$(gcloud storage service-agent)
pubsub=service-$(gcloud projects describe "$project" --format='value(projectNumber)')@gcp-sa-pubsub.iam.gserviceaccount.com
runtime=python$(sed -n '/^variable "python"/,/^}/s/^ *default *= "\(.*\)\.\(.*\)"/\1\2/p' "$dist/main.tf")

for account in "$function" "$caller" "$builder"; do
  gcloud iam service-accounts describe "$account" >/dev/null 2>&1 ||
    gcloud iam service-accounts create "${account%%@*}"
done
for role in roles/artifactregistry.writer roles/logging.logWriter roles/storage.objectViewer; do
  gcloud projects add-iam-policy-binding "$project" --member="serviceAccount:$builder" --role="$role" --condition=None >/dev/null
done
gcloud storage buckets add-iam-policy-binding "gs://$BUCKET" --member="serviceAccount:$function" --role=roles/storage.objectViewer >/dev/null
gcloud secrets add-iam-policy-binding "$name" --member="serviceAccount:$function" --role=roles/secretmanager.secretAccessor >/dev/null

# Source is a folder: gcloud takes no zip of this machine's.
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
python -m zipfile -e "$dist/syncagent-gcp.zip" "$source"
gcloud functions deploy "$name" --gen2 --region="$REGION" --runtime="$runtime" --source="$source" --entry-point=push --trigger-http \
  --no-allow-unauthenticated --ingress-settings=internal-only --service-account="$function" \
  --build-service-account="projects/$project/serviceAccounts/$builder" --set-build-env-vars=GOOGLE_VENDOR_PIP_DEPENDENCIES=wheels \
  --cpu=1 --memory=512Mi --timeout=120s --max-instances=5 --concurrency=8 \
  --set-env-vars="SYNCAGENT_CATALOG=$SYNCAGENT_CATALOG,DTLPY_USERNAME=gcp-secret://$project/$name#username,DTLPY_PASSWORD=gcp-secret://$project/$name#password"
url=$(gcloud functions describe "$name" --gen2 --region="$REGION" --format='value(serviceConfig.uri)')
gcloud run services add-iam-policy-binding "$name" --region="$REGION" --member="serviceAccount:$caller" --role=roles/run.invoker >/dev/null

for topic in "$name" "$name-dead"; do
  gcloud pubsub topics describe "$topic" >/dev/null 2>&1 || gcloud pubsub topics create "$topic"
done
gcloud pubsub topics add-iam-policy-binding "$name" --member="serviceAccount:$storage" --role=roles/pubsub.publisher >/dev/null
gcloud pubsub topics add-iam-policy-binding "$name-dead" --member="serviceAccount:$pubsub" --role=roles/pubsub.publisher >/dev/null
gcloud pubsub subscriptions describe "$name-dead" >/dev/null 2>&1 ||
  gcloud pubsub subscriptions create "$name-dead" --topic="$name-dead" --ack-deadline=60 --message-retention-duration=7d --expiration-period=never
gcloud pubsub subscriptions describe "$name" >/dev/null 2>&1 ||
  gcloud pubsub subscriptions create "$name" --topic="$name" --push-endpoint="$url" --push-auth-service-account="$caller" \
    --ack-deadline=600 --message-retention-duration=7d --expiration-period=never --min-retry-delay=10s --max-retry-delay=600s \
    --dead-letter-topic="$name-dead" --max-delivery-attempts=100
gcloud pubsub subscriptions add-iam-policy-binding "$name" --member="serviceAccount:$pubsub" --role=roles/pubsub.subscriber >/dev/null
echo "syncagent bind DATASET --to function --function $url"
